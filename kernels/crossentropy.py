"""Cross entropy over a vocabulary, with what language models add to it.

With x = softcap · tanh(logits / softcap) (or the logits), lse = log Σ exp x, p = exp(x − lse),
class weights ω and Ω = Σ ω (1 and V without), target t:

    loss  = (1−ε) ω_t (lse − x_t) + ε/V (Ω·lse − Σ_c ω_c x_c) + z · lse²
    dx_c  = g · (p_c ((1−ε) ω_t + ε Ω/V + 2z·lse) − [c = t] (1−ε) ω_t − ε ω_c/V)
    dlogits_c = dx_c · (1 − (x_c/softcap)²)

Bytes, M rows of V logits of e bytes: forward MVe + 16M (target, loss, lse), backward
2MVe + 16M; an ignored row is not read at all.
"""

from typing import Literal

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.backend import KernelError, wants_triton
from kernels.layout import as_rows, row_stride, vector, wide
from kernels.rmsnorm import statistics_dtype
from kernels.settings import launch

Reduction = Literal["mean", "sum", "none"]


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
) -> Tensor:
    """Cross entropy of `logits` (..., V) against `targets` (...), in fp32 whatever the logits are.

    shift: position i predicts the target of position i+1 along the last dimension of targets; the
    last position predicts nothing. "mean" divides by the sum of the targets' class weights (their
    number without class_weight) and is 0, not NaN, when every target is ignored. A target outside
    the vocabulary raises on the CPU and makes the loss NaN in a kernel, which reads nothing wild.
    """
    if not wants_triton(logits):
        return cross_entropy_ref(
            logits, targets, ignore_index=ignore_index, label_smoothing=label_smoothing,
            z_loss=z_loss, softcap=softcap, class_weight=class_weight, shift=shift,
            reduction=reduction,
        )  # fmt: skip
    if shift:
        targets = shifted(targets, ignore_index)
    losses, _ = cross_entropy_op(
        logits, targets, class_weight, ignore_index, label_smoothing, z_loss, softcap
    )
    return reduced(losses, targets, ignore_index, class_weight, reduction)


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
) -> Tensor:
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
    return reduced(losses, targets, ignore_index, class_weight, reduction)


def shifted(targets: Tensor, ignore_index: int) -> Tensor:
    """Targets moved one position to the left; the last position is ignored."""
    last = torch.full_like(targets[..., :1], ignore_index)
    return torch.cat((targets[..., 1:], last), -1)


def denominator(targets: Tensor, ignore_index: int, class_weight: Tensor | None) -> Tensor:
    """What "mean" divides by: a scalar on the targets' device, 1 when all are ignored."""
    kept = targets != ignore_index
    if class_weight is None:
        return kept.sum().clamp(min=1)
    # clamp: a target outside the vocabulary must poison the loss, not this gather
    index = targets.where(kept, 0).clamp(0, class_weight.numel() - 1)
    total = class_weight[index].where(kept, 0.0).sum()
    return total.where(kept.any(), torch.ones_like(total))


def reduced(
    losses: Tensor,
    targets: Tensor,
    ignore_index: int,
    class_weight: Tensor | None,
    reduction: Reduction,
) -> Tensor:
    """Per-token losses (...) to what was asked for. Raises KernelError for an unknown reduction."""
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    if reduction == "mean":
        return losses.sum() / denominator(targets, ignore_index, class_weight)
    raise KernelError(f"reduction={reduction!r} is not known; choose mean, sum or none")


@triton.jit
def split_row(row, stride, n, VEC: tl.constexpr):
    """A row in three parts: columns [0, head), then `whole` columns that begin at a 128-bit
    boundary and are a multiple of VEC, then fewer than VEC columns. Returns (offset of the
    aligned part, head, whole): with an odd vocabulary each row begins somewhere else, and only
    an aligned offset that the compiler can see gives 128-bit loads."""
    begin = row * stride
    aligned = (begin + VEC - 1) // VEC * VEC
    head = tl.minimum(aligned - begin, n)
    return aligned, head, tl.maximum(n - head, 0) // VEC * VEC


@triton.jit
def edge_columns(head, whole, n, VEC: tl.constexpr):
    """The columns outside the aligned part, and which of the 2·VEC lanes hold one."""
    lane = tl.arange(0, 2 * VEC)
    cols = tl.where(lane < VEC, lane, head + whole + lane - VEC)
    return cols, tl.where(lane < VEC, lane < head, cols < n)


@triton.jit
def capped(x, softcap, HAS_SOFTCAP: tl.constexpr):
    """softcap · tanh(x / softcap)."""
    if HAS_SOFTCAP:
        x = softcap * (2 / (1 + tl.exp(-2 * x / softcap)) - 1)
    return x


@triton.jit
def row_gradient(
    x, cols, weight, target, lse, target_weight, p_scale, smooth, g, softcap,
    HAS_SOFTCAP: tl.constexpr,
):  # fmt: skip
    """dlogits of capped logits x; smooth = ε/V, target_weight and p_scale as in the formula."""
    d = tl.exp(x - lse) * p_scale - smooth * weight
    d = (d - tl.where(cols == target, target_weight, 0.0)) * g
    if HAS_SOFTCAP:
        d *= 1 - (x / softcap) * (x / softcap)
    return d


@triton.jit
def _partial_sums(
    LOGITS, WEIGHT, cols, mask, top, target, softcap,
    HAS_WEIGHT: tl.constexpr, HAS_SOFTCAP: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """(new maximum, exp(x − maximum), ω·x, x at the target or 0) of one tile of a row."""
    x = tl.load(LOGITS + cols, mask, other=0.0).to(ACC)
    x = capped(x, softcap, HAS_SOFTCAP)
    high = tl.maximum(top, tl.max(tl.where(mask, x, -float("inf")), 0))
    # a tile of -inf alone (a masked vocabulary) must not become inf - inf
    base = tl.where(high == -float("inf"), 0.0, high)
    weighted = tl.where(mask, x, 0.0)
    if HAS_WEIGHT:
        weighted *= tl.load(WEIGHT + cols, mask, other=0.0).to(ACC)
    at_target = tl.where(mask & (cols == target), x, 0.0)
    return high, tl.where(mask, tl.exp(x - base), 0.0), weighted, at_target


@triton.jit(do_not_specialize=["stride", "n", "ignore_index", "first_class", "classes"])
def cross_entropy_fwd_kernel(
    LOGITS,  # (m, n)
    TARGETS,  # (m,) int64
    WEIGHT,  # (classes,) fp32, or nothing
    WEIGHT_SUM,  # (), fp32, or nothing
    LOSSES,  # (m,); with PARTS: x at the target
    LSE,  # (m,)
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
    PARTS: tl.constexpr,  # leave the loss to the caller, who holds the other shards
    ACC: tl.constexpr,
    VEC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(TARGETS + row)
    kept = target != ignore_index
    n = tl.where(kept, n, 0)
    aligned, head, whole = split_row(row, stride, n, VEC)
    WEIGHT += first_class
    local = target - first_class
    top = tl.full((), -float("inf"), ACC)
    exps = tl.zeros((BLOCK,), ACC)
    sums = tl.zeros((BLOCK,), ACC)
    hits = tl.zeros((), ACC)
    for start in range(0, whole, BLOCK):
        cols = start + tl.arange(0, BLOCK)
        mask = cols // VEC * VEC < whole
        high, e, weighted, hit = _partial_sums(
            LOGITS + aligned, WEIGHT + head, cols, mask, top, local - head, softcap,
            HAS_WEIGHT, HAS_SOFTCAP, ACC,
        )  # fmt: skip
        exps = exps * tl.where(high == -float("inf"), 0.0, tl.exp(top - high)) + e
        sums += weighted
        if (local >= head + start) & (local < head + start + BLOCK):
            hits += tl.sum(hit, 0)
        top = high
    cols, mask = edge_columns(head, whole, n, VEC)
    high, e, weighted, hit = _partial_sums(
        LOGITS + row * stride, WEIGHT, cols, mask, top, local, softcap,
        HAS_WEIGHT, HAS_SOFTCAP, ACC,
    )  # fmt: skip
    total = tl.sum(exps, 0) * tl.where(high == -float("inf"), 0.0, tl.exp(top - high))
    lse = high + tl.log(total + tl.sum(e, 0))
    hits += tl.sum(hit, 0)
    weighted_sum = tl.sum(sums, 0) + tl.sum(weighted, 0)
    tl.store(LSE + row, tl.where(kept, lse, 0.0))
    if PARTS:
        tl.store(LOSSES + row, hits)
        tl.store(SUMS + row, weighted_sum)
    else:
        loss = token_loss(
            lse, hits, weighted_sum, target, WEIGHT, WEIGHT_SUM, classes, smoothing, z_loss,
            HAS_WEIGHT, ACC,
        )  # fmt: skip
        tl.store(LOSSES + row, tl.where(kept, loss, 0.0))


@triton.jit
def token_loss(
    lse, hit, weighted_sum, target, WEIGHT, WEIGHT_SUM, classes, smoothing, z_loss,
    HAS_WEIGHT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """The loss of one token; NaN for a target outside the vocabulary."""
    known = (target >= 0) & (target < classes)
    loss = lse - hit
    spread = lse * classes
    if HAS_WEIGHT:
        loss *= tl.load(WEIGHT + target, known, other=0.0).to(ACC)
        spread = lse * tl.load(WEIGHT_SUM).to(ACC)
    spread = tl.where(smoothing > 0, smoothing / classes * (spread - weighted_sum), 0.0)
    loss = (1 - smoothing) * loss + spread + z_loss * lse * lse
    return tl.where(known, loss, float("nan"))


@triton.jit
def gradient_scales(
    target, lse, WEIGHT, WEIGHT_SUM, classes, smoothing, z_loss,
    HAS_WEIGHT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """((1−ε) ω_t, the factor of p, ε/V) of one token; NaN for a target outside the vocabulary."""
    known = (target >= 0) & (target < classes)
    target_weight = tl.full((), 1.0, ACC)
    share = smoothing
    if HAS_WEIGHT:
        target_weight = tl.load(WEIGHT + target, known, other=0.0).to(ACC)
        share = smoothing * tl.load(WEIGHT_SUM).to(ACC) / classes
    target_weight *= 1 - smoothing
    p_scale = tl.where(known, target_weight + share + 2 * z_loss * lse, float("nan"))
    return target_weight, p_scale, smoothing / classes


@triton.jit
def _gradient_tile(
    LOGITS, DLOGITS, WEIGHT, cols, mask, kept, target, lse, target_weight, p_scale, smooth, g,
    softcap, HAS_WEIGHT: tl.constexpr, HAS_SOFTCAP: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    x = capped(tl.load(LOGITS + cols, mask & kept, other=0.0).to(ACC), softcap, HAS_SOFTCAP)
    weight = 1.0
    if HAS_WEIGHT:
        weight = tl.load(WEIGHT + cols, mask, other=0.0).to(ACC)
    d = row_gradient(
        x, cols, weight, target, lse, target_weight, p_scale, smooth, g, softcap, HAS_SOFTCAP
    )
    tl.store(DLOGITS + cols, tl.where(kept, d, 0.0).to(DLOGITS.dtype.element_ty), mask)


@triton.jit(do_not_specialize=["stride", "n", "ignore_index", "first_class", "classes", "g_stride"])
def cross_entropy_bwd_kernel(
    LOGITS,  # (m, n)
    TARGETS,  # (m,) int64
    WEIGHT,  # (classes,), or nothing
    WEIGHT_SUM,  # (), or nothing
    LSE,  # (m,)
    G,  # (m,): the gradient of each loss
    DLOGITS,  # (m, n), strided as LOGITS, or LOGITS itself
    stride,
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
    kept = target != ignore_index
    lse = tl.load(LSE + row)
    g = tl.load(G + row * g_stride).to(ACC)
    aligned, head, whole = split_row(row, stride, n, VEC)
    target_weight, p_scale, smooth = gradient_scales(
        target, lse, WEIGHT, WEIGHT_SUM, classes, smoothing, z_loss, HAS_WEIGHT, ACC
    )
    WEIGHT += first_class
    local = target - first_class
    for start in range(0, whole, BLOCK):
        cols = start + tl.arange(0, BLOCK)
        mask = cols // VEC * VEC < whole
        _gradient_tile(
            LOGITS + aligned, DLOGITS + aligned, WEIGHT + head, cols, mask, kept, local - head,
            lse, target_weight, p_scale, smooth, g, softcap, HAS_WEIGHT, HAS_SOFTCAP, ACC,
        )  # fmt: skip
    cols, mask = edge_columns(head, whole, n, VEC)
    _gradient_tile(
        LOGITS + row * stride, DLOGITS + row * stride, WEIGHT, cols, mask, kept, local,
        lse, target_weight, p_scale, smooth, g, softcap, HAS_WEIGHT, HAS_SOFTCAP, ACC,
    )  # fmt: skip


def logit_rows(logits: Tensor) -> Tensor:
    """(M, V) whose rows do not overlap, so that the gradient can be laid out alike and both are
    aligned alike."""
    rows = as_rows(logits)
    return rows if row_stride(rows) >= rows.shape[1] else rows.contiguous()


def gradient_like(logits: Tensor) -> Tensor:
    """An empty gradient of logits' shape with the row stride of `logit_rows`."""
    rows = logit_rows(logits)
    return logits.new_empty_strided(rows.shape, (row_stride(rows), 1)).view(logits.shape)


def class_arguments(class_weight: Tensor | None, logits: Tensor) -> tuple[Tensor, Tensor]:
    """The class weights and their sum on the device; any pointer stands in where there are none."""
    if class_weight is None:
        return logits, logits
    wide_weight = class_weight.to(statistics_dtype(logits)).contiguous()
    return wide_weight, wide_weight.sum()


def forward(
    logits: Tensor,
    targets: Tensor,
    class_weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    softcap: float | None,
) -> tuple[Tensor, Tensor]:
    """Launch the forward; returns per-token losses (...) and lse (M,)."""
    rows = logit_rows(logits)
    m, n = rows.shape
    losses = logits.new_empty(targets.shape, dtype=statistics_dtype(logits))
    lse = losses.new_empty(m)
    if m and n:
        how = launch("cross_entropy_fwd", logits, n)
        cross_entropy_fwd_kernel[(m,)](
            rows, targets.contiguous(), *class_arguments(class_weight, logits), losses, lse, lse,
            row_stride(rows), n, ignore_index, 0, n, label_smoothing, z_loss, softcap or 1.0,
            class_weight is not None, softcap is not None, False, wide(logits), vector(logits),
            how.block, **how.options,
        )  # fmt: skip
    return losses, lse


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
) -> Tensor:
    """Launch the backward; returns dlogits (..., V)."""
    rows, dlogits = logit_rows(logits), gradient_like(logits)
    m, n = rows.shape
    if m and n:
        how = launch("cross_entropy_bwd", logits, n)
        g = dlosses.flatten() if dlosses.dim() != 1 else dlosses
        cross_entropy_bwd_kernel[(m,)](
            rows, targets.contiguous(), *class_arguments(class_weight, logits), lse, g, dlogits,
            row_stride(rows), n, ignore_index, 0, n, g.stride(0), label_smoothing, z_loss,
            softcap or 1.0,
            class_weight is not None, softcap is not None, wide(logits), vector(logits),
            how.block, **how.options,
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
) -> tuple[Tensor, Tensor]:
    """The torch op of `cross_entropy` before its reduction; returns (losses, lse)."""
    return forward(logits, targets, class_weight, ignore_index, label_smoothing, z_loss, softcap)


@cross_entropy_op.register_fake
def _(logits, targets, class_weight, ignore_index, label_smoothing, z_loss, softcap):
    losses = logits.new_empty(targets.shape, dtype=statistics_dtype(logits))
    return losses, losses.new_empty(targets.numel())


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


def _setup_context(ctx, inputs, output):
    logits, targets, class_weight, *ctx.options = inputs
    ctx.save_for_backward(logits, targets, output[1], class_weight)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx, dlosses, _):
    nothing = (None,) * 6
    if dlosses is None:
        return None, *nothing
    return cross_entropy_backward_op(dlosses, *ctx.saved_tensors, *ctx.options), *nothing


cross_entropy_op.register_autograd(_backward, setup_context=_setup_context)
