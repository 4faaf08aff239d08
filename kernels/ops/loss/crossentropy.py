"""Cross entropy over a vocabulary, with label smoothing, z-loss, softcap and class weights.

With x = softcap · tanh(logits / softcap) (or the logits), lse = log Σ exp x, p = exp(x − lse),
class weights ω and Ω = Σ ω (1 and V without), target t:

    loss  = (1−ε) ω_t (lse − x_t) + ε/V (Ω·lse − Σ_c ω_c x_c) + z · lse²
    dx_c  = g · (p_c ((1−ε) ω_t + ε Ω/V + 2z·lse) − [c = t] (1−ε) ω_t − ε ω_c/V)
    dlogits_c = dx_c · (1 − (x_c/softcap)²)

Label smoothing: arXiv:1512.00567. z-loss: arXiv:2204.02311. lse is taken online, arXiv:1805.02867.

Bytes, M rows of V logits of e bytes: forward MVe + 16M (target, loss, lse), backward
2MVe + 16M; an ignored row is not read at all.
"""

from typing import Any, Literal, Unpack, overload

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.backend import wants_triton
from kernels.launch.arguments import check_device, check_tensors
from kernels.launch.config import launch_config
from kernels.launch.derivatives import differentiable_once, refuse_forward_mode
from kernels.launch.dtypes import accumulator_type, statistics_dtype
from kernels.launch.layout import as_rows, row_stride, vector_length
from kernels.ops.loss.criterion import (
    Criterion,
    LossOptions,
    LossStatistics,
    Reduction,
    check_arguments,
    is_top,
    reduced,
    shifted,
)
from kernels.ops.loss.row import class_table, read_row, token_loss, write_row

__all__ = ["cross_entropy"]


@overload
def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    statistics: Literal[False] = False,
    **options: Unpack[LossOptions],
) -> Tensor: ...


@overload
def cross_entropy(
    logits: Tensor, targets: Tensor, *, statistics: Literal[True], **options: Unpack[LossOptions]
) -> LossStatistics: ...


def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    class_weight: Tensor | None = None,
    shift: bool = False,
    reduction: Reduction = "mean",
    statistics: bool = False,
) -> Tensor | LossStatistics:
    """Cross entropy of `logits` (..., V) against `targets` (...), in fp32 whatever the logits are.

    shift: position i predicts the target of position i+1 along the last dimension of targets; the
    last position predicts nothing. "mean" divides by the sum of the targets' class weights (their
    number without class_weight) and is 0, not NaN, when every target is ignored. A target outside
    the vocabulary raises on the CPU and makes the loss NaN in a kernel, which reads nothing wild.
    statistics: return a `LossStatistics`, the loss beside lse and the correct targets, which cost
    M(e + 5) bytes more than the loss, and have no gradient.
    Raises KernelError for arguments that do not fit the logits.
    """
    check_tensors("cross_entropy", logits=logits, class_weight=class_weight)
    check_arguments(
        "cross_entropy", logits.shape[-1], targets, logits.shape[:-1], class_weight,
        Criterion(ignore_index, label_smoothing, z_loss, softcap), shift, reduction,
    )  # fmt: skip
    check_device("cross_entropy", logits=logits, targets=targets)
    refuse_forward_mode("cross_entropy", logits, class_weight)
    if class_weight is not None:
        class_weight = class_weight.to(statistics_dtype(logits))
    if not wants_triton(logits):
        return cross_entropy_ref(
            logits, targets, ignore_index=ignore_index, label_smoothing=label_smoothing,
            z_loss=z_loss, softcap=softcap, class_weight=class_weight, shift=shift,
            reduction=reduction, statistics=statistics,
        )  # fmt: skip
    if shift:
        targets = shifted(targets, ignore_index)
    losses, lse, correct = cross_entropy_op(
        logits, targets, class_weight, ignore_index, label_smoothing, z_loss, softcap, statistics
    )
    loss = reduced(losses, targets, ignore_index, class_weight, reduction)
    return LossStatistics(loss, lse.view(targets.shape), correct) if statistics else loss


def cross_entropy_ref(
    logits: Tensor,
    targets: Tensor,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    class_weight: Tensor | None = None,
    shift: bool = False,
    reduction: Reduction = "mean",
    statistics: bool = False,
) -> Any:
    """The specification in plain torch."""
    if shift:
        targets = shifted(targets, ignore_index)
    x = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if softcap is not None:
        x = softcap * torch.tanh(x / softcap)
    lse = x.logsumexp(-1)
    kept = targets != ignore_index
    index = targets.where(kept, 0)
    losses = lse - x.gather(-1, index.unsqueeze(-1)).squeeze(-1)
    if class_weight is not None:
        losses = losses * class_weight[index]
    if label_smoothing:
        apart = lse.unsqueeze(-1) - x
        spread = apart if class_weight is None else apart * class_weight
        losses = (1 - label_smoothing) * losses + label_smoothing * spread.mean(-1)
    if z_loss:
        losses = losses + z_loss * lse.square()
    losses = losses.where(kept, 0.0)
    loss = reduced(losses, targets, ignore_index, class_weight, reduction)
    if not statistics:
        return loss
    return LossStatistics(loss, lse.detach().where(kept, 0.0), is_top(x, targets, kept))


@triton.jit(do_not_specialize=["stride", "n", "ignore_index", "first_class", "classes"])
def cross_entropy_fwd_kernel(
    LOGITS,  # (m, n)
    TARGETS,  # (m,) int64
    WEIGHT,  # class_table of all classes, or nothing
    WEIGHT_SUM,  # (), or nothing
    LOSSES,  # (m,); with PARTS: x at the target
    LSE,  # (m,)
    CORRECT,  # (m,) with STATISTICS: 1 where the target has the first of the largest logits
    SUMS,  # (m,) with PARTS: Σ ω·x
    stride,
    n,  # columns here
    ignore_index,
    first_class,  # the class of column 0
    classes,  # of the whole vocabulary
    smoothing,
    z_loss,
    softcap,
    HAS_WEIGHT: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    STATISTICS: tl.constexpr,
    PARTS: tl.constexpr,  # leave the loss to the caller, who holds the other shards
    ACC: tl.constexpr,
    VEC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(TARGETS + row)
    kept = target != ignore_index
    lse, hit, weighted_sum, correct = read_row(
        LOGITS, WEIGHT, row, stride, tl.where(kept, n, 0), first_class, classes, target, softcap,
        HAS_WEIGHT=HAS_WEIGHT, HAS_SOFTCAP=HAS_SOFTCAP, STATISTICS=STATISTICS, ACC=ACC, VEC=VEC,
        BLOCK=BLOCK,
    )  # fmt: skip
    tl.store(LSE + row, tl.where(kept, lse, 0.0))
    if STATISTICS:
        tl.store(CORRECT + row, correct.to(tl.uint8))
    if PARTS:
        tl.store(LOSSES + row, hit)
        tl.store(SUMS + row, weighted_sum)
    else:
        loss = token_loss(
            lse, hit, weighted_sum, target, WEIGHT, WEIGHT_SUM, classes, smoothing, z_loss,
            HAS_WEIGHT, ACC,
        )  # fmt: skip
        tl.store(LOSSES + row, tl.where(kept, loss, 0.0))


@triton.jit(
    do_not_specialize=[
        "stride", "stride_d", "n", "ignore_index", "first_class", "classes", "g_stride"
    ]
)  # fmt: skip
def cross_entropy_bwd_kernel(
    LOGITS,  # (m, n)
    TARGETS,  # (m,) int64
    WEIGHT,  # class_table of all classes, or nothing
    WEIGHT_SUM,  # (), or nothing
    LSE,  # (m,)
    G,  # (m,): the gradient of each loss
    DLOGITS,  # (m, n), aligned as LOGITS, or LOGITS itself
    stride,
    stride_d,
    n,
    ignore_index,
    first_class,
    classes,
    g_stride,
    smoothing,
    z_loss,
    softcap,
    HAS_WEIGHT: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    ACC: tl.constexpr,
    VEC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(TARGETS + row)
    write_row(
        LOGITS, DLOGITS, WEIGHT, WEIGHT_SUM, row, stride, stride_d, n, first_class, classes, target,
        kept=target != ignore_index, lse=tl.load(LSE + row),
        g=tl.load(G + row * g_stride).to(ACC), smoothing=smoothing, z_loss=z_loss, softcap=softcap,
        HAS_WEIGHT=HAS_WEIGHT, HAS_SOFTCAP=HAS_SOFTCAP, ACC=ACC, VEC=VEC, BLOCK=BLOCK,
    )  # fmt: skip


def logit_rows(logits: Tensor) -> Tensor:
    """(M, V) whose rows do not overlap."""
    rows = as_rows(logits)
    return rows if row_stride(rows) >= rows.shape[1] else rows.contiguous()


def gradient_like(logits: Tensor) -> Tensor:
    """An empty gradient (..., V) whose rows lie as close as they can and are aligned as those of
    `logit_rows` are: row i of both begins as many elements past a 128-bit boundary."""
    rows = logit_rows(logits)
    m, n = rows.shape
    stride = n + (row_stride(rows) - n) % vector_length(logits)
    return logits.new_empty_strided((m, n), (stride, 1)).view(logits.shape)


def forward(
    logits: Tensor,
    targets: Tensor,
    class_weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    softcap: float | None,
    statistics: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Launch the forward; returns per-token losses (...), lse (M,) and the correct targets (...),
    of no elements without statistics."""
    rows = logit_rows(logits)
    m, n = rows.shape
    losses = logits.new_empty(targets.shape, dtype=statistics_dtype(logits))
    lse = losses.new_empty(m)
    correct = logits.new_empty(targets.shape if statistics else 0, dtype=torch.bool)
    if m and n:
        cfg = launch_config("cross_entropy_fwd", logits, n)
        weight, weight_sum = class_table(class_weight, logits) or (rows, rows)
        cross_entropy_fwd_kernel[(m,)](
            LOGITS=rows, TARGETS=targets.contiguous(), WEIGHT=weight, WEIGHT_SUM=weight_sum,
            LOSSES=losses, LSE=lse, CORRECT=correct.view(torch.uint8) if statistics else lse,
            SUMS=lse, stride=row_stride(rows), n=n, ignore_index=ignore_index, first_class=0,
            classes=n, smoothing=label_smoothing, z_loss=z_loss, softcap=softcap or 1.0,
            HAS_WEIGHT=class_weight is not None, HAS_SOFTCAP=softcap is not None,
            STATISTICS=statistics, PARTS=False, ACC=accumulator_type(logits),
            VEC=vector_length(logits), BLOCK=cfg.block, **cfg.options,
        )  # fmt: skip
    return losses, lse, correct


def backward(
    dlosses: Tensor,
    logits: Tensor,
    targets: Tensor,
    lse: Tensor,
    class_weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    softcap: float | None,
    into: Tensor | None = None,
) -> Tensor:
    """Launch the backward; returns dlogits (..., V), in `into` if that is given: the logits
    themselves, or what `gradient_like` returns."""
    rows, dlogits = logit_rows(logits), gradient_like(logits) if into is None else into
    m, n = rows.shape
    if m and n:
        cfg = launch_config("cross_entropy_bwd", logits, n)
        weight, weight_sum = class_table(class_weight, logits) or (rows, rows)
        g = dlosses.flatten() if dlosses.dim() != 1 else dlosses
        cross_entropy_bwd_kernel[(m,)](
            LOGITS=rows, TARGETS=targets.contiguous(), WEIGHT=weight, WEIGHT_SUM=weight_sum,
            LSE=lse, G=g, DLOGITS=dlogits, stride=row_stride(rows),
            stride_d=row_stride(as_rows(dlogits)), n=n, ignore_index=ignore_index, first_class=0,
            classes=n, g_stride=g.stride(0), smoothing=label_smoothing, z_loss=z_loss,
            softcap=softcap or 1.0, HAS_WEIGHT=class_weight is not None,
            HAS_SOFTCAP=softcap is not None, ACC=accumulator_type(logits),
            VEC=vector_length(logits), BLOCK=cfg.block, **cfg.options,
        )  # fmt: skip
    return dlogits


@torch.library.custom_op("lockgate::cross_entropy", mutates_args=())
def cross_entropy_op(
    logits: Tensor,
    targets: Tensor,
    class_weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    softcap: float | None,
    statistics: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The torch op of `cross_entropy` before its reduction; as `forward` returns."""
    return forward(
        logits, targets, class_weight, ignore_index, label_smoothing, z_loss, softcap, statistics
    )


@cross_entropy_op.register_fake
def _(logits, targets, class_weight, ignore_index, label_smoothing, z_loss, softcap, statistics):
    losses = logits.new_empty(targets.shape, dtype=statistics_dtype(logits))
    correct = logits.new_empty(targets.shape if statistics else 0, dtype=torch.bool)
    return losses, losses.new_empty(targets.numel()), correct


@torch.library.custom_op("lockgate::cross_entropy_backward", mutates_args=())
def cross_entropy_backward_op(
    dlosses: Tensor,
    logits: Tensor,
    targets: Tensor,
    lse: Tensor,
    class_weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    softcap: float | None,
) -> Tensor:
    """The backward of `lockgate::cross_entropy`; returns dlogits."""
    return backward(
        dlosses, logits, targets, lse, class_weight, ignore_index, label_smoothing, z_loss, softcap
    )


@cross_entropy_backward_op.register_fake
def _(dlosses, logits, targets, lse, *_):
    return gradient_like(logits)


differentiable_once(cross_entropy_backward_op, "cross_entropy")


def _setup_context(ctx, inputs, output):
    logits, targets, class_weight, *options, _ = inputs
    _, lse, correct = output
    ctx.options = options
    ctx.save_for_backward(logits, targets, lse, class_weight)
    ctx.mark_non_differentiable(lse, correct)
    ctx.set_materialize_grads(False)


def _backward(ctx, dlosses, *_):
    nothing = (None,) * 7
    if dlosses is None:
        return None, *nothing
    return cross_entropy_backward_op(dlosses, *ctx.saved_tensors, *ctx.options), *nothing


cross_entropy_op.register_autograd(_backward, setup_context=_setup_context)
