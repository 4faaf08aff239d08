"""The error of each bf16 operator against fp64 is not above that of torch's own bf16 operator."""

import pytest
import torch
import torch.nn.functional as F

import kernels

ROWS = [1, 3, 33]
WIDTHS = [1, 127, 128, 1000, 4096, 16384]


def error(ours, theirs, exact):
    """(rms error of ours, of theirs) against the exact result."""

    def rms(x):
        return (x.double() - exact).square().mean().sqrt().item()

    return rms(ours), rms(theirs)


def gradients(f, inputs, dout):
    """f's output and the gradients of its inputs."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    out = f(*leaves)
    outs, douts = (out, dout) if isinstance(out, tuple) else ((out,), (dout,))
    grads = torch.autograd.grad(
        outs, leaves, [d.to(o.dtype) for o, d in zip(outs, douts, strict=True)]
    )
    return [*outs, *grads]


def no_worse(ours, torchs, inputs, dout, exactly=None):
    """Compare outputs and gradients of two bf16 functions with the fp64 one."""
    kernels.use("triton")
    mine = gradients(ours, inputs, dout)
    theirs = gradients(torchs, inputs, dout)
    exact = gradients(
        exactly or torchs,
        [x.double() for x in inputs],
        tuple(d.double() for d in dout) if isinstance(dout, tuple) else dout.double(),
    )
    for index, (a, b, c) in enumerate(zip(mine, theirs, exact, strict=True)):
        assert a.shape == c.shape
        own, other = error(a, b, c)
        assert own <= other, f"result {index}: error {own:.3e}, torch's {other:.3e}"


def bf16(*shape, scale=1.0):
    return (torch.randn(shape) * scale).bfloat16()


@pytest.mark.parametrize("n", WIDTHS)
def test_rms_norm(n):
    m = ROWS[n % 3]
    x, w = bf16(m, n), bf16(n)
    no_worse(
        lambda x, w: kernels.rms_norm(x, w),
        lambda x, w: F.rms_norm(x, (n,), w, 1e-6),
        (x, w),
        bf16(m, n),
    )
