"""Peak memory of the fused linear cross entropy, measured storage by storage, is its formula."""

import pytest
import torch

from kernels.launch import token_chunks
from kernels.ops.loss.criterion import Criterion
from kernels.ops.loss.divergence import fused_divergence
from kernels.ops.loss.divergence_row import Divergence
from kernels.ops.loss.linear_fused import fused_loss
from kernels.ops.loss.linear_losses import gradients_by_chunk, losses_by_chunk
from kernels.ops.loss.saved_gradients import scaled
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
    assert memory.alive <= m * n * e + 2 * v * n + scalars, "more than the gradients is kept"
    assert loss.isfinite() and len(kept[0]) == 5


@pytest.mark.parametrize(("dtype", "layers"), [(torch.bfloat16, 2.5), (torch.float16, 3)])
def test_forward_and_backward_in_output_layers(dtype, layers, monkeypatch):
    """In bf16 dW in fp32 is two, and half a layer more is rounded at a time; the backward has dW as
    it was kept and as it returns it, two. In fp16 it was kept in fp32, and that is three."""
    m, n, v, e = 16, 64, 4001, 2
    monkeypatch.setattr("kernels.ops.loss.saved_gradients.SLICE", 100 * n)
    monkeypatch.setattr("kernels.launch.token_chunks.accumulate", lambda *_: None)
    hidden, weight = torch.randn(m, n).to(dtype), torch.randn(v, n).to(dtype)
    targets = torch.randint(0, v, (m,))
    with torch.no_grad(), Peak([hidden, weight, targets]) as memory:
        loss, kept, *_ = fused_loss(
            hidden, weight, None, targets, None, Criterion(), True, (True, True, False), True
        )
        factor = loss / kept.magnified
        dh = scaled([kept.dhidden], factor, dtype)
        dw = scaled([kept.dweight_low, kept.dweight_high], factor, dtype)
    assert dh.shape == hidden.shape and dw.shape == weight.shape
    one, beside = v * n * e, 2 * m * n * e + 2 * 100 * n * 4 + 8192
    assert layers * one <= memory.peak <= layers * one + beside


@pytest.mark.parametrize("kind", ["forward", "reverse", "jsd", "dpo"])
def test_logits_of_student_and_teacher_are_never_whole(kind, monkeypatch):
    """Of 64 tokens in four chunks."""
    m, n, v = 64, 4, 4001
    monkeypatch.setattr("kernels.launch.token_chunks.size", lambda *_: 16)
    monkeypatch.setattr("kernels.launch.token_chunks.accumulate", lambda *_: None)
    hidden, teacher = torch.randn(2, m, n).bfloat16()
    weight, layer = torch.randn(2, v, n).bfloat16()
    targets, kept = torch.randint(0, v, (m,)), torch.ones(m, dtype=torch.bool)
    model = hidden, weight, None
    with torch.no_grad(), Peak([hidden, weight, teacher, layer, targets, kept]) as memory:
        if kind == "dpo":
            losses, lse, _ = losses_by_chunk(*model, targets, None, Criterion(), True, False)
            gradients_by_chunk(losses, *model, targets, lse, None, Criterion(), True)
        else:
            fused_divergence(
                model, (teacher, layer, None), kept, Divergence(kind), True, (True,) * 3, True
            )
    chunks = (1 if kind == "dpo" else 2) * 16 * 4032 * 2
    layers = 2 * n * v * 4 + 2 * v * 4
    assert chunks <= memory.peak <= chunks + layers
    assert memory.peak < m * v * 2, "as much as all logits of one model"
