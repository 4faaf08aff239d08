"""Linear layer + cross entropy of every token by itself (reduction "none"), chunk by chunk.

Formulas and memory are those of kernels/ops/loss/linear_fused.py, except that the gradients wait
for those of the losses: the backward makes each chunk's logits again.
"""

import torch
from torch import Tensor

from kernels.launch import token_chunks
from kernels.launch.derivatives import differentiable_once
from kernels.launch.dtypes import statistics_dtype
from kernels.ops.loss import crossentropy


@torch.library.custom_op("lockgate::linear_losses", mutates_args=())
def linear_losses_op(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    class_weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    softcap: float | None,
    on_triton: bool,
) -> tuple[Tensor, Tensor]:
    """Per-token losses alone, chunk by chunk; returns (losses (M,), lse (M,))."""
    options = class_weight, ignore_index, label_smoothing, z_loss, softcap
    losses = hidden.new_empty(hidden.shape[0], dtype=statistics_dtype(hidden))
    lse = torch.empty_like(losses)
    for part, logits in token_chunks.logits(hidden, weight, bias):
        if on_triton:
            losses[part], lse[part] = crossentropy.forward(logits, targets[part], *options)
        else:
            losses[part] = crossentropy.cross_entropy_ref(
                logits, targets[part], ignore_index=ignore_index, label_smoothing=label_smoothing,
                z_loss=z_loss, softcap=softcap, class_weight=class_weight, reduction="none",
            )  # fmt: skip
    return losses, lse


@linear_losses_op.register_fake
def _(hidden, weight, bias, targets, *_):
    losses = hidden.new_empty(hidden.shape[0], dtype=statistics_dtype(hidden))
    return losses, torch.empty_like(losses)


@torch.library.custom_op("lockgate::linear_losses_backward", mutates_args=())
def linear_losses_backward_op(
    dlosses: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    lse: Tensor,
    class_weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    softcap: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The backward of `lockgate::linear_losses`: the chunks again; returns (dh, dW, db), db with
    no elements without a bias."""
    options = class_weight, ignore_index, label_smoothing, z_loss, softcap
    dhidden = torch.empty_like(hidden, memory_format=torch.contiguous_format)
    dweight = torch.zeros_like(weight, dtype=statistics_dtype(hidden))
    dbias = dweight.new_zeros(0 if bias is None else weight.shape[0])
    for part, logits in token_chunks.logits(hidden, weight, bias):
        crossentropy.backward(
            dlosses[part], logits, targets[part], lse[part], *options, into=logits
        )
        torch.mm(logits, weight, out=dhidden[part])
        token_chunks.accumulate(dweight, logits, hidden[part])
        if bias is not None:
            dbias += logits.sum(0, dtype=dbias.dtype)
    return dhidden, dweight.to(weight.dtype), dbias.to(weight.dtype)


@linear_losses_backward_op.register_fake
def _(dlosses, hidden, weight, bias, *_):
    shape = torch.contiguous_format
    return (
        torch.empty_like(hidden, memory_format=shape),
        torch.empty_like(weight, memory_format=shape),
        weight.new_empty(0 if bias is None else weight.shape[0]),
    )


differentiable_once(linear_losses_backward_op, "linear_cross_entropy")


def _losses_context(ctx, inputs, output):
    hidden, weight, bias, targets, class_weight, *options, _ = inputs
    ctx.save_for_backward(hidden, weight, bias, targets, output[1], class_weight)
    ctx.options = options
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _losses_backward(ctx, dlosses, _):
    nothing = (None,) * 7
    if dlosses is None:
        return None, None, None, *nothing
    dh, dw, db = linear_losses_backward_op(dlosses, *ctx.saved_tensors, *ctx.options)
    return dh, dw, db if db.numel() else None, *nothing


linear_losses_op.register_autograd(_losses_backward, setup_context=_losses_context)
