"""Peak memory of the fused linear cross entropy, measured storage by storage, is its formula."""

import pytest
import torch

import kernels
from kernels.launch import token_chunks
from kernels.ops.loss.criterion import Criterion
from kernels.ops.loss.linear_fused import fused_loss
from tests.kernels.peak import Peak


@pytest.mark.parametrize("parts", [1, 4])
def test_peak_is_the_formula(parts, monkeypatch):
    m, n, v, e = 256, 64, 4001, 2
    monkeypatch.setattr("kernels.launch.token_chunks.CPU_LOGITS", m // parts * v)
    c = token_chunks.size(m, v, torch.device("cpu"))
    assert c == m // parts
    hidden = torch.randn(m, n).bfloat16()
    weight = torch.randn(v, n).bfloat16()
    targets = torch.randint(0, v, (m,))
    # The CPU widens the factors of dW, which a GPU multiplies as they are: not part of the op.
    monkeypatch.setattr("kernels.launch.token_chunks.accumulate", lambda *_: None)
    with torch.no_grad(), Peak([hidden, weight, targets]) as memory:
        loss, *kept = fused_loss(
            hidden, weight, None, targets, None, Criterion(), True, (True, True, False), True
        )
    padded = -(-v // 64) * 64
    formula = c * padded * e + m * n * e + 4 * v * n + 4 * m
    scalars = 128 + 2 * m  # g, its power of two, the number of kept targets and their mask
    assert formula <= memory.peak <= formula + scalars
    assert memory.alive <= m * n * e + 4 * v * n + scalars, "more than the gradients is kept"
    assert loss.isfinite() and len(kept) == 4


def test_forward_and_backward_hold_three_weights(monkeypatch):
    """In bf16: dW in fp32 is two, dW as the weight is the third; dh and a slice lie beside them."""
    m, n, v, e = 32, 64, 4001, 2
    monkeypatch.setattr("kernels.launch.token_chunks.CPU_LOGITS", m * v)
    monkeypatch.setattr("kernels.ops.loss.saved_gradients.SLICE", 100 * n)
    monkeypatch.setattr("kernels.launch.token_chunks.accumulate", lambda *_: None)
    hidden = torch.randn(m, n).bfloat16().requires_grad_()
    weight = torch.randn(v, n).bfloat16().requires_grad_()
    targets = torch.randint(0, v, (m,))
    with Peak([hidden, weight, targets]) as memory:
        torch.autograd.grad(kernels.linear_cross_entropy(hidden, weight, targets), [hidden, weight])
    slices = 2 * 100 * n * 4
    assert 3 * v * n * e <= memory.peak <= 3 * v * n * e + 2 * m * n * e + slices + 4096
