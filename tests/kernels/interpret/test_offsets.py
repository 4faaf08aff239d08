"""Offsets beyond 2^31 elements, on sparse files: address space is used, memory is not."""

import pytest
import torch
import torch.nn.functional as F

import kernels
from kernels.rmsnorm import rms_norm_ref
from kernels.rotary import rope_ref

FAR = (1 << 31) + 1024  # elements from one row to the next


@pytest.fixture
def sparse(tmp_path):
    """Two rows of `n` elements FAR apart in a file with a hole between them."""

    def make(n, name):
        x = torch.from_file(str(tmp_path / name), shared=True, size=FAR + n, dtype=torch.bfloat16)
        rows = x.as_strided((2, n), (FAR, 1))
        rows.copy_(torch.randn(2, n))
        return rows

    return make


def test_rows_more_than_two_billion_elements_apart(sparse):
    x, gate, logits = sparse(256, "x"), sparse(256, "gate"), sparse(1001, "logits")
    w, targets = torch.randn(256).bfloat16(), torch.tensor([7, 900])
    torch.testing.assert_close(kernels.rms_norm(x, w), rms_norm_ref(x, w))
    torch.testing.assert_close(kernels.swiglu(gate, x), F.silu(gate) * x)
    torch.testing.assert_close(
        kernels.cross_entropy(logits, targets), F.cross_entropy(logits.float(), targets)
    )
    q = x.view(2, 1, 4, 64)
    cos, sin = torch.randn(2, 1, 32)
    torch.testing.assert_close(kernels.rope(q, q, cos, sin), rope_ref(q, q, cos, sin))


def test_backwards_reach_as_far(sparse):
    x = sparse(256, "x").requires_grad_()
    near = x.detach().clone().requires_grad_()
    w = torch.randn(256).bfloat16()
    torch.testing.assert_close(
        torch.autograd.grad(kernels.rms_norm(x, w).sum(), x),
        torch.autograd.grad(kernels.rms_norm(near, w).sum(), near),
        rtol=0, atol=0,
    )  # fmt: skip
    torch.testing.assert_close(
        torch.autograd.grad(kernels.swiglu(x, x).sum(), x),
        torch.autograd.grad(kernels.swiglu(near, near).sum(), near),
        rtol=0, atol=0,
    )  # fmt: skip
