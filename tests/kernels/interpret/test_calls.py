"""Calls that ran a Triton kernel are counted as such, in eager mode and where they are traced."""

import pytest
import torch

import kernels
from kernels import calls
from kernels.calls import OperatorCalls


@pytest.fixture(autouse=True)
def nothing_called(monkeypatch):
    monkeypatch.setattr(calls, "_calls", {})
    yield
    torch._dynamo.reset()


def test_triton_is_counted_and_gives_no_reason(meter):
    x, w = torch.randn(2, 8), torch.ones(8)
    kernels.rms_norm(x, w)
    compiled = torch.compile(
        lambda y: kernels.swiglu(y, y), backend="aot_eager", fullgraph=True
    )  # fmt: skip
    for _ in range(2):
        compiled(x)
    assert kernels.operator_calls() == {
        "rms_norm": OperatorCalls(triton=1),
        "swiglu": OperatorCalls(traced_triton=1),
    }
    assert meter.programs["glu_fwd_kernel"] == 2  # the graph ran the kernel, and counted nothing
