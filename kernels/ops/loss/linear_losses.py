"""Linear layer + cross entropy of every token by itself (reduction "none"), chunk by chunk.

Formulas and memory are those of kernels/ops/loss/linear_fused.py, except that the gradients wait
for those of the losses: the backward makes each chunk's logits again.
"""

from dataclasses import asdict

import torch
from torch import Tensor

from kernels.launch import token_chunks
from kernels.launch.derivatives import differentiable_once
from kernels.launch.dtypes import statistics_dtype
from kernels.ops.loss import crossentropy
from kernels.ops.loss.criterion import Criterion
from kernels.ops.loss.linear_fused import empty_statistics, loss_and_gradient_ref


def losses_by_chunk(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    class_weight: Tensor | None,
    criterion: Criterion,
    on_triton: bool,
    statistics: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses (M,), lse (M,) and correct (M,), the last of no elements without statistics."""
    losses = hidden.new_empty(hidden.shape[0], dtype=statistics_dtype(hidden))
    lse, correct = torch.empty_like(losses), empty_statistics(hidden, statistics)[1]
    for part, logits in token_chunks.logits(hidden, weight, bias):
        if on_triton:
            found = crossentropy.forward(
                logits, targets[part], class_weight, *criterion.options, statistics
            )
        else:
            found = crossentropy.cross_entropy_ref(
                logits, targets[part], **asdict(criterion), class_weight=class_weight,
                reduction="none", statistics=True,
            )  # fmt: skip
        losses[part], lse[part], top = found
        if statistics:
            correct[part] = top
    return losses, lse, correct


def gradients_by_chunk(
    dlosses: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    lse: Tensor,
    class_weight: Tensor | None,
    criterion: Criterion,
    on_triton: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of hidden, weight and bias, each chunk's logits made again; the last has no
    elements without a bias."""
    dhidden = torch.empty_like(hidden, memory_format=torch.contiguous_format)
    dweight = torch.zeros_like(weight, dtype=statistics_dtype(hidden))
    dbias = dweight.new_zeros(0 if bias is None else weight.shape[0])
    for part, logits in token_chunks.logits(hidden, weight, bias):
        g, own = dlosses[part], targets[part]
        if on_triton:
            crossentropy.backward(
                g, logits, own, lse[part], class_weight, *criterion.options, into=logits
            )
        else:
            unused = torch.empty_like(lse[part])
            loss_and_gradient_ref(logits, own, class_weight, criterion, g, unused)
        torch.mm(logits, weight, out=dhidden[part])
        token_chunks.accumulate(dweight, logits, hidden[part])
        if bias is not None:
            dbias += logits.sum(0, dtype=dbias.dtype)
    return dhidden, dweight.to(weight.dtype), dbias.to(weight.dtype)


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
    statistics: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The torch op of `losses_by_chunk`."""
    criterion = Criterion(ignore_index, label_smoothing, z_loss, softcap)
    return losses_by_chunk(
        hidden, weight, bias, targets, class_weight, criterion, on_triton, statistics
    )


@linear_losses_op.register_fake
def _(hidden, weight, bias, targets, cw, ig, ls, z, cap, on_triton, statistics):
    losses = hidden.new_empty(hidden.shape[0], dtype=statistics_dtype(hidden))
    return losses, torch.empty_like(losses), empty_statistics(hidden, statistics)[1]


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
    on_triton: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The backward of `lockgate::linear_losses`, as `gradients_by_chunk` returns."""
    criterion = Criterion(ignore_index, label_smoothing, z_loss, softcap)
    return gradients_by_chunk(
        dlosses, hidden, weight, bias, targets, lse, class_weight, criterion, on_triton
    )


@linear_losses_backward_op.register_fake
def _(dlosses, hidden, weight, bias, *_):
    shape = torch.contiguous_format
    return (
        torch.empty_like(hidden, memory_format=shape),
        torch.empty_like(weight, memory_format=shape),
        weight.new_empty(0 if bias is None else weight.shape[0]),
    )


differentiable_once(
    linear_losses_backward_op, "linear_cross_entropy, sequence_log_prob, linear_dpo"
)


def _losses_context(ctx, inputs, output):
    hidden, weight, bias, targets, class_weight, *options, _statistics = inputs
    _, lse, correct = output
    ctx.save_for_backward(hidden, weight, bias, targets, lse, class_weight)
    ctx.options = options
    ctx.mark_non_differentiable(lse, correct)
    ctx.set_materialize_grads(False)


def _losses_backward(ctx, dlosses, *_):
    nothing = (None,) * 8
    if dlosses is None:
        return None, None, None, *nothing
    dh, dw, db = linear_losses_backward_op(dlosses, *ctx.saved_tensors, *ctx.options)
    return dh, dw, db if db.numel() else None, *nothing


linear_losses_op.register_autograd(_losses_backward, setup_context=_losses_context)
