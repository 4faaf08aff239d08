"""Device code of the losses for one row of logits: read it, write its gradient, by the formulas of
kernels/ops/loss/crossentropy.py. lse is a running maximum and a sum scaled to it (Milakov and
Gimelshein, Online normalizer calculation for softmax, arXiv:1805.02867), one per lane.

A row of an odd vocabulary begins somewhere else than its predecessor, and only an aligned offset
that the compiler can see gives 128-bit accesses. A row is therefore taken in three parts: fewer
than VEC columns up to the next 128-bit boundary, whole vectors, fewer than VEC columns.

One row, VEC = 8, whose first logit lies 5 elements past a boundary (`split_row`):

    memory    |. . . . . x x x|x x x x x x x x|x x x x x x x x|x x . . . . . .|
    columns             0 1 2  3             10 11          18 19 20
    part                head=3 |<------- whole = 16 -------->| tail = 2
    read by              edge   tiles of BLOCK, 128 bits a lane  edge
                         lanes                                   lanes

`read_row` goes over the tiles and then over both edges at once (2·VEC lanes); `write_row` goes back
over the same tiles, last one first. What a row leaves behind is four numbers: lse, x at the target,
Σ ω·x, and whether any logit is ahead of the target's.

Class weights come as `class_table` lays them out: row s is the vector of weights without its first
s entries, so that whichever column a row's whole vectors begin at, the weights beside them are
aligned too.
"""

import triton
import triton.language as tl
from torch import Tensor

from kernels.launch.dtypes import statistics_dtype
from kernels.launch.layout import vector_length
from kernels.launch.registers import by_vector


def class_table(class_weight: Tensor | None, logits: Tensor) -> tuple[Tensor, Tensor] | None:
    """Class weights (VEC, V') and their sum (), both in the statistics dtype of tensors like
    `logits`; V' is V in whole vectors."""
    if class_weight is None:
        return None
    weight = class_weight.to(statistics_dtype(logits))
    vec, classes = vector_length(logits), weight.numel()
    padded = weight.new_zeros(triton.cdiv(classes, vec) * vec + vec)
    padded[:classes] = weight
    return padded.unfold(0, padded.numel() - vec, 1)[:vec].contiguous(), weight.sum()


@triton.jit
def weights_from(WEIGHT, first, classes, VEC: tl.constexpr):
    """Pointer to the weight of class `first` on a 128-bit boundary of a `class_table`."""
    skip = first % VEC
    length = (classes + VEC - 1) // VEC * VEC
    return WEIGHT + skip.to(tl.int64) * length + (first - skip) // VEC * VEC


@triton.jit
def split_row(row, stride, n, VEC: tl.constexpr):
    """(offset of the whole vectors, columns before them, columns in them) of a row."""
    begin = row * stride
    aligned = (begin + VEC - 1) // VEC * VEC
    head = tl.minimum(aligned - begin, n).to(tl.int32)
    return aligned, head, tl.maximum(n - head, 0) // VEC * VEC


@triton.jit
def edge_columns(head, whole, n, VEC: tl.constexpr):
    """The columns outside the whole vectors, and which of the 2·VEC lanes hold one."""
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
def online(x, top, total):
    """Running maxima (L,) and Σ exp(x − maximum) (L,) of L lanes after x (L, VEC)."""
    high = tl.maximum(top, tl.max(x, 1))
    # a lane of -inf alone (a masked vocabulary) must not become inf - inf
    base = tl.where(high == -float("inf"), 0.0, high)
    return high, total * tl.exp(top - base) + tl.sum(tl.exp(x - base[:, None]), 1)


@triton.jit
def settled(top, total):
    """(a finite maximum, Σ exp(x − maximum)) of the whole row from those of its lanes (L,)."""
    high = tl.max(top, 0)
    base = tl.where(high == -float("inf"), 0.0, high)
    return base, tl.sum(total * tl.exp(top - base), 0)


@triton.jit
def ahead_of(x, own, cols, place):
    """1 for each of x that argmax takes before `own` in column `place`: a larger one, an equal one
    further left, a NaN."""
    return ((x > own) | ((x == own) & (cols < place)) | (x != x)).to(tl.int32)


@triton.jit
def _read_tile(
    LOGITS, WEIGHT, cols, mask, place, own, softcap, sums,
    HAS_WEIGHT: tl.constexpr, HAS_SOFTCAP: tl.constexpr, STATISTICS: tl.constexpr,
    ACC: tl.constexpr, VEC: tl.constexpr,
):  # fmt: skip
    """The sums of each lane (top, total, hit, weighted, ahead) after one tile more."""
    top, total, hit, weighted, ahead = sums
    x = capped(tl.load(LOGITS + cols, mask, other=0.0).to(ACC), softcap, HAS_SOFTCAP)
    if STATISTICS:
        flags = ahead_of(tl.where(mask, x, -float("inf")), own, cols, place)
        ahead |= tl.max(by_vector(flags, VEC), 1)
    top, total = online(by_vector(tl.where(mask, x, -float("inf")), VEC), top, total)
    hit += tl.sum(by_vector(tl.where(mask & (cols == place), x, 0.0), VEC), 1)
    x = tl.where(mask, x, 0.0)
    if HAS_WEIGHT:
        x *= tl.load(WEIGHT + cols, mask, other=0.0).to(ACC)
    return top, total, hit, weighted + tl.sum(by_vector(x, VEC), 1), ahead


@triton.jit
def read_row(
    LOGITS, WEIGHT, row, stride, n, first_class, classes, target, softcap,
    HAS_WEIGHT: tl.constexpr, HAS_SOFTCAP: tl.constexpr, STATISTICS: tl.constexpr,
    ACC: tl.constexpr, VEC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """(lse, x at the target or 0, Σ ω·x, whether argmax is the target) over the n columns of a row;
    column 0 is `first_class`. Nothing is read where n is 0, and the last is False without
    STATISTICS."""
    aligned, head, whole = split_row(row, stride, n, VEC)
    place = (target - first_class).to(tl.int32)
    vectors = weights_from(WEIGHT, first_class + head, classes, VEC)
    known = (target >= first_class) & (target < first_class + n)
    own = tl.zeros((), ACC)
    if STATISTICS:
        own = tl.load(LOGITS + row * stride + (target - first_class), known, other=0.0).to(ACC)
        own = capped(own, softcap, HAS_SOFTCAP)
    zeros = tl.zeros((BLOCK // VEC,), ACC)
    top = tl.full((BLOCK // VEC,), -float("inf"), ACC)
    sums = (top, zeros, zeros, zeros, tl.zeros((BLOCK // VEC,), tl.int32))
    for start in range(0, whole, BLOCK):
        cols = start + tl.arange(0, BLOCK)
        sums = _read_tile(
            LOGITS + aligned, vectors, cols, cols // VEC * VEC < whole, place - head, own, softcap,
            sums, HAS_WEIGHT=HAS_WEIGHT, HAS_SOFTCAP=HAS_SOFTCAP, STATISTICS=STATISTICS, ACC=ACC,
            VEC=VEC,
        )  # fmt: skip
    top, total, hit, weighted, ahead = sums
    base, total = settled(top, total)
    # the edges go on from there in one of two lanes
    first = tl.arange(0, 2) == 0
    cols, mask = edge_columns(head, whole, n, VEC)
    sums = (
        tl.where(first, tl.max(top, 0), -float("inf")), tl.where(first, total, 0.0),
        tl.where(first, tl.sum(hit, 0), 0.0), tl.where(first, tl.sum(weighted, 0), 0.0),
        tl.where(first, tl.max(ahead, 0), 0),
    )  # fmt: skip
    top, total, hit, weighted, ahead = _read_tile(
        LOGITS + row * stride, WEIGHT + first_class, cols, mask, place, own, softcap, sums,
        HAS_WEIGHT=HAS_WEIGHT, HAS_SOFTCAP=HAS_SOFTCAP, STATISTICS=STATISTICS, ACC=ACC, VEC=VEC,
    )  # fmt: skip
    base, total = settled(top, total)
    leads = known & (tl.max(ahead, 0) == 0) & (own > -float("inf"))
    return base + tl.log(total), tl.sum(hit, 0), tl.sum(weighted, 0), leads


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
    target, lse, g, WEIGHT, WEIGHT_SUM, classes, smoothing, z_loss,
    HAS_WEIGHT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """g times ((1−ε) ω_t, the factor of p, ε/V) of one token; NaN for a target outside the
    vocabulary."""
    known = (target >= 0) & (target < classes)
    target_weight = tl.full((), 1.0, ACC)
    share = smoothing
    if HAS_WEIGHT:
        target_weight = tl.load(WEIGHT + target, known, other=0.0).to(ACC)
        share = smoothing * tl.load(WEIGHT_SUM).to(ACC) / classes
    target_weight *= 1 - smoothing
    p_scale = tl.where(known, target_weight + share + 2 * z_loss * lse, float("nan"))
    return g * target_weight, g * p_scale, g * (smoothing / classes)


@triton.jit
def row_gradient(
    x, e, cols, weight, place, target_weight, p_scale, smooth, softcap, HAS_SOFTCAP: tl.constexpr
):
    """g·dlogits where e·p_scale is g times the factor of p times p."""
    d = e * p_scale - smooth * weight
    d -= tl.where(cols == place, target_weight, 0.0)
    if HAS_SOFTCAP:
        d *= 1 - (x / softcap) * (x / softcap)
    return d


@triton.jit
def _write_tile(
    LOGITS, DLOGITS, WEIGHT, cols, mask, kept, place, lse, target_weight, p_scale, smooth, softcap,
    HAS_WEIGHT: tl.constexpr, HAS_SOFTCAP: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    x = capped(tl.load(LOGITS + cols, mask & kept, other=0.0).to(ACC), softcap, HAS_SOFTCAP)
    weight = 1.0
    if HAS_WEIGHT:
        weight = tl.load(WEIGHT + cols, mask, other=0.0).to(ACC)
    d = row_gradient(
        x, tl.exp(x - lse), cols, weight, place, target_weight, p_scale, smooth, softcap,
        HAS_SOFTCAP,
    )  # fmt: skip
    tl.store(DLOGITS + cols, tl.where(kept, d, 0.0).to(DLOGITS.dtype.element_ty), mask)


@triton.jit
def write_row(
    LOGITS, DLOGITS, WEIGHT, WEIGHT_SUM, row, stride, stride_d, n, first_class, classes, target,
    kept, lse, g, smoothing, z_loss, softcap,
    HAS_WEIGHT: tl.constexpr, HAS_SOFTCAP: tl.constexpr, ACC: tl.constexpr, VEC: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """g·dlogits of a row, 0 in a row that is not kept, whose logits are not read. Rows of both
    tensors are aligned alike. The last tile comes first: it is the one that may still be in cache
    from reading the row."""
    aligned, head, whole = split_row(row, stride, n, VEC)
    aligned_d, _, _ = split_row(row, stride_d, n, VEC)
    local = (target - first_class).to(tl.int32)
    target_weight, p_scale, smooth = gradient_scales(
        target, lse, g, WEIGHT, WEIGHT_SUM, classes, smoothing, z_loss, HAS_WEIGHT, ACC
    )
    vectors = weights_from(WEIGHT, first_class + head, classes, VEC)
    last = tl.cdiv(whole, BLOCK) * BLOCK - BLOCK
    for back in range(0, whole, BLOCK):
        cols = last - back + tl.arange(0, BLOCK)
        _write_tile(
            LOGITS + aligned, DLOGITS + aligned_d, vectors, cols, cols // VEC * VEC < whole, kept,
            local - head, lse, target_weight, p_scale, smooth, softcap, HAS_WEIGHT=HAS_WEIGHT,
            HAS_SOFTCAP=HAS_SOFTCAP, ACC=ACC,
        )  # fmt: skip
    cols, mask = edge_columns(head, whole, n, VEC)
    _write_tile(
        LOGITS + row * stride, DLOGITS + row * stride_d, WEIGHT + first_class, cols, mask, kept,
        local, lse, target_weight, p_scale, smooth, softcap, HAS_WEIGHT=HAS_WEIGHT,
        HAS_SOFTCAP=HAS_SOFTCAP, ACC=ACC,
    )  # fmt: skip
