"""Calls of the operators, counted by what served them; torch.compile has nothing of the count."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import kernels
from kernels import calls
from kernels.calls import OperatorCalls
from kernels.ops.rmsnorm import rms_norm

X, W = torch.randn(3, 8), torch.ones(8)


@pytest.fixture(autouse=True)
def nothing_called(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(calls, "_calls", {})
    previous = kernels.use("auto")
    yield
    kernels.use(previous)
    torch._dynamo.reset()


def test_a_call_counts_once_for_the_operator_that_was_called() -> None:
    assert kernels.operator_calls() == {}
    q, cos = torch.randn(1, 2, 1, 8), torch.ones(2, 2)
    kernels.rope(q, q, cos, cos, torch.ones(8), torch.ones(8))  # normalises with rms_norm itself
    for _ in range(2):
        kernels.swiglu(X, X)
    assert kernels.operator_calls() == {
        "rope": OperatorCalls(reference=1, reason="no GPU"),
        "swiglu": OperatorCalls(reference=2, reason="no GPU"),
    }


def test_a_module_counts_as_its_operator() -> None:
    head = kernels.LinearCrossEntropy(8, 5)
    head(X, torch.tensor([0, 1, 4])).backward()
    assert kernels.operator_calls()["linear_cross_entropy"].reference == 1


def test_the_reason_is_the_choice_or_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels.rms_norm(X, weight=W)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    kernels.rms_norm(X, W)
    assert kernels.operator_calls()["rms_norm"].reason == "tensors on the cpu"
    kernels.use("torch")
    kernels.rms_norm(X, W)
    assert kernels.operator_calls()["rms_norm"] == OperatorCalls(
        reference=3, reason="kernels=torch"
    )


def test_a_refusal_counts_with_its_sentence_and_is_raised() -> None:
    with pytest.raises(kernels.KernelError, match="weight is"):
        kernels.rms_norm(X, torch.ones(3))
    kernels.use("triton")
    with pytest.raises(kernels.KernelError, match="cannot run on CPU tensors"):
        kernels.swiglu(X, X)
    found = kernels.operator_calls()
    assert (found["rms_norm"].refused, found["rms_norm"].reference) == (1, 0)
    assert found["rms_norm"].refusal.startswith("rms_norm: weight is [3]")
    assert found["swiglu"].refusal.startswith("kernels=triton cannot run on CPU")


def test_an_error_that_is_no_refusal_is_not_counted() -> None:
    with pytest.raises(TypeError):
        kernels.rms_norm(X, W, nonsense=1)
    assert kernels.operator_calls() == {}


def graphs_of(function) -> list[list[str]]:
    """The operations of each graph that torch.compile makes of `function`, as they are called."""
    found = []

    def backend(graph, inputs):
        found.append([str(node.target) for node in graph.graph.nodes])
        return graph

    compiled = torch.compile(function, backend=backend, fullgraph=True)
    with torch.compiler.set_stance(
        "default"
    ):  # an optimizer of another test may have turned it off
        for x in (X, 2 * X, X + 1):
            torch.testing.assert_close(compiled(x), function(x))
    return found


def test_a_compiled_graph_is_as_without_the_count() -> None:
    bare = graphs_of(lambda x: rms_norm(x, W) * 2)
    assert kernels.operator_calls() == {}
    counted = graphs_of(lambda x: kernels.rms_norm(x, W) * 2)
    assert counted == bare and len(bare) == 1  # nothing of it, and nothing to compile again for
    one = kernels.operator_calls()["rms_norm"]
    assert (one.traced_reference, one.reference) == (1, 3)  # one graph, and three calls beside it
    assert one.reason == "no GPU"
