"""Loss and gradients of linear layer + cross entropy in one walk over chunks of tokens.

Tokens go through in chunks of C. For each chunk: logits = h Wᵀ + b into one reused buffer, their
loss and gradient in place (the formulas of kernels/ops/loss/crossentropy.py), then
dh = dlogits · W, dW += dlogitsᵀ · h and db += Σ dlogits in fp32. With "mean" or "sum" the gradients
are known up to the scalar that arrives in the backward, so the forward makes them and the backward
only scales.

Peak memory beyond the inputs, N hidden, V vocabulary, M tokens, V' = V padded to 64, a slice of
32 MiB:
    forward     C·V'·e (buffer) + M·N·e (dh) + 4·V·N (dW) + 4·M (losses)
    its end     M·N·e + 4·V·N + V·N (half of dW in bf16)
    backward    2·M·N·e (dh, twice) + 2·V·N (dW in bf16; 4 in fp16) + V·N·e (as the weight) + slice
In bf16 that is at most 3·V·N·e, dh in it, where C/N + M/V ≤ 1 and M ≤ V/2, the slice apart: 2.56
at 8192 tokens of 4096 and 128,256 classes. In fp16 the backward is at 3·V·N·e, dh and the slice
apart, 3.14 there: dW has to stay in fp32 (kernels/ops/loss/saved_gradients.py), which is two, and
the result lies beside it.
Bytes for n chunks: n(2VNe + 8VN) + 5MVe + 3MNe + 16M, of which the row kernel 2MVe + 12M; a bias
adds MVe. With class weights or statistics, and where a row does not fit the registers that can
share a program (above 32768 classes on sm_80, whose register file is 256 KiB), logits are read a
second time, from cache.

dh and dW are kept as the hidden states are: a gradient of the loss that is no power of two (1/3 of
three micro-steps) rounds them once more.

A row in the registers of one program, BLOCK = 16, VEC = 8, TILES = 2, of n = 27 in a padded buffer:

    tile 0    |x x x x x x x x|x x x x x x x x|    loaded once, kept as it came (16 bits)
    tile 1    |x x x x x x x x|x x x 0 0 0 0 0|    0: padding, in the last vector, -inf to the sums
    pass 1    widen, cap, online maximum and sum of each lane (one lane a vector) -> lse
    pass 2    widen anew from the kept bits -> x at the target, Σ x, and the gradient, in place
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.launch import token_chunks
from kernels.launch.config import largest_size, launch_config
from kernels.launch.dtypes import accumulator_type, statistics_dtype
from kernels.launch.layout import vector_length
from kernels.launch.registers import by_vector, widened
from kernels.ops.loss.criterion import Criterion, denominator, is_top
from kernels.ops.loss.row import (
    capped,
    class_table,
    gradient_scales,
    online,
    read_row,
    row_gradient,
    settled,
    token_loss,
    write_row,
)
from kernels.ops.loss.saved_gradients import (
    GradientSums,
    KeptGradients,
    kept_dtype,
    magnification,
    register_scaling,
)

# Classes of a row in registers; above, with class weights and statistics, it is read twice.
LARGEST = largest_size("linear_cross_entropy")


@triton.jit(do_not_specialize=["n", "ignore_index"])
def linear_cross_entropy_kernel(
    LOGITS,  # (m, stride): read, then overwritten with their gradient
    TARGETS,  # (m,) int64
    G,  # (): the gradient of every loss
    LOSSES,  # (m,)
    stride,  # of our own buffer: a multiple of 64, so that n may be odd
    n,
    ignore_index,
    smoothing,
    z_loss,
    softcap,
    HAS_SOFTCAP: tl.constexpr,
    ACC: tl.constexpr,
    VEC: tl.constexpr,
    BLOCK: tl.constexpr,
    TILES: tl.constexpr,
):
    """A whole row in registers, of one thread block or of a cluster: read once, written once."""
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(TARGETS + row)
    kept = target != ignore_index
    place = target.to(tl.int32)
    LOGITS += row * stride
    tile = tl.arange(0, BLOCK)
    top = tl.full((BLOCK // VEC,), -float("inf"), ACC)
    total = tl.zeros((BLOCK // VEC,), ACC)
    kept_row = ()
    for part in tl.static_range(TILES):
        cols = part * BLOCK + tile
        # up to the end of a vector: into the padding, never past it
        logits = tl.load(LOGITS + cols, (cols // VEC * VEC < n) & kept, other=0.0)
        kept_row = kept_row + (logits,)  # type: ignore[assignment]  # noqa: RUF005
        x = capped(logits.to(ACC), softcap, HAS_SOFTCAP)
        if part == TILES - 1:
            x = tl.where(cols < n, x, -float("inf"))
        top, total = online(by_vector(x, VEC), top, total)
    base, total = settled(top, total)
    lse = base + tl.log(total)
    g = tl.where(kept, tl.load(G).to(ACC), 0.0)
    target_weight, p_scale, smooth = gradient_scales(
        target, lse, g, G, G, n, smoothing, z_loss, False, ACC
    )
    # exp(x - base) / total is p; an ignored row was never read
    p_scale = tl.where(kept, p_scale / total, 0.0)
    hit = tl.zeros((BLOCK // VEC,), ACC)
    summed = tl.zeros((BLOCK // VEC,), ACC)
    # 0, which the compiler of Triton 3.9 cannot know, so that it does not keep the row widened from
    # the first pass on: where a later one sees through it, tests/kernels/compile/test_facts.py
    # counts spills in this kernel
    zero = n >> 31
    for part in tl.static_range(TILES):
        cols = part * BLOCK + tile
        x = capped(widened(kept_row[part], zero, ACC), softcap, HAS_SOFTCAP)
        d = row_gradient(
            x, tl.exp(x - base), cols, 1.0, place, target_weight, p_scale, smooth, softcap,
            HAS_SOFTCAP,
        )  # fmt: skip
        tl.store(LOGITS + cols, d.to(LOGITS.dtype.element_ty), cols // VEC * VEC < n)
        hit += tl.sum(by_vector(tl.where(cols == place, x, 0.0), VEC), 1)
        if part == TILES - 1:
            x = tl.where(cols < n, x, 0.0)
        summed += tl.sum(by_vector(x, VEC), 1)
    loss = token_loss(
        lse, tl.sum(hit, 0), tl.sum(summed, 0), target, G, G, n, smoothing, z_loss, False, ACC
    )
    tl.store(LOSSES + row, tl.where(kept, loss, 0.0))


@triton.jit(do_not_specialize=["n", "ignore_index"])
def linear_cross_entropy_streamed_kernel(
    LOGITS,  # (m, stride): read twice, overwritten with their gradient
    TARGETS,  # (m,) int64
    WEIGHT,  # class_table, or nothing
    WEIGHT_SUM,  # (), or nothing
    G,  # (): the gradient of every loss
    LOSSES,  # (m,)
    LSE,  # (m,) with STATISTICS
    CORRECT,  # (m,) with STATISTICS
    stride,
    n,
    ignore_index,
    smoothing,
    z_loss,
    softcap,
    HAS_WEIGHT: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    STATISTICS: tl.constexpr,
    ACC: tl.constexpr,
    VEC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The same where the registers that share a program cannot hold a row, or not what it is
    compared with beside it (class weights; for STATISTICS the target's logit and the columns before
    it): each row is read a second time right after the first, from cache."""
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(TARGETS + row)
    kept = target != ignore_index
    lse, hit, weighted_sum, correct = read_row(
        LOGITS, WEIGHT, row, stride, tl.where(kept, n, 0), 0, n, target, softcap,
        HAS_WEIGHT=HAS_WEIGHT, HAS_SOFTCAP=HAS_SOFTCAP, STATISTICS=STATISTICS, ACC=ACC, VEC=VEC,
        BLOCK=BLOCK,
    )  # fmt: skip
    if STATISTICS:
        tl.store(LSE + row, tl.where(kept, lse, 0.0))
        tl.store(CORRECT + row, correct.to(tl.uint8))
    loss = token_loss(
        lse, hit, weighted_sum, target, WEIGHT, WEIGHT_SUM, n, smoothing, z_loss, HAS_WEIGHT, ACC
    )
    tl.store(LOSSES + row, tl.where(kept, loss, 0.0))
    # every warp has read the columns at the row's edges for itself before one of them writes there
    tl.debug_barrier()
    write_row(
        LOGITS, LOGITS, WEIGHT, WEIGHT_SUM, row, stride, stride, n, 0, n, target, kept=kept,
        lse=lse, g=tl.load(G).to(ACC), smoothing=smoothing, z_loss=z_loss, softcap=softcap,
        HAS_WEIGHT=HAS_WEIGHT, HAS_SOFTCAP=HAS_SOFTCAP, ACC=ACC, VEC=VEC, BLOCK=BLOCK,
    )  # fmt: skip


def loss_and_gradient(
    logits: Tensor,
    targets: Tensor,
    classes: tuple[Tensor, Tensor] | None,
    criterion: Criterion,
    g: Tensor,
    losses: Tensor,
    statistics: tuple[Tensor, Tensor] | None = None,
) -> None:
    """One chunk: `losses` (C,) from `logits` (C, V) of `token_chunks.buffer`, overwritten with
    g·dlogits. `classes` is the `class_table`, one for all chunks; `statistics`, where wanted, are
    written too: lse (C,) and correct (C,)."""
    rows, n = logits.shape
    arguments = {
        "LOGITS": logits, "TARGETS": targets, "G": g, "LOSSES": losses,
        "stride": logits.stride(0), "n": n, "ignore_index": criterion.ignore_index,
        "smoothing": criterion.label_smoothing, "z_loss": criterion.z_loss,
        "softcap": criterion.softcap or 1.0, "HAS_SOFTCAP": criterion.softcap is not None,
        "ACC": accumulator_type(logits), "VEC": vector_length(logits),
    }  # fmt: skip
    whole = classes is None and statistics is None and n <= LARGEST
    cfg = launch_config("linear_cross_entropy" + ("" if whole else "_streamed"), logits, n)
    arguments |= {"BLOCK": cfg.block, **cfg.options}
    if cfg.reads == 1:
        tiles = triton.cdiv(n, cfg.block)
        linear_cross_entropy_kernel[(rows,)](**arguments, TILES=tiles)
        return
    weight, weight_sum = classes or (logits, logits)
    lse, correct = statistics or (losses, losses)
    linear_cross_entropy_streamed_kernel[(rows,)](
        **arguments, WEIGHT=weight, WEIGHT_SUM=weight_sum, LSE=lse,
        CORRECT=correct if statistics is None else correct.view(torch.uint8),
        HAS_WEIGHT=classes is not None, STATISTICS=statistics is not None,
    )  # fmt: skip


def loss_and_gradient_ref(
    logits: Tensor,
    targets: Tensor,
    class_weight: Tensor | None,
    criterion: Criterion,
    g: Tensor,
    losses: Tensor,
    statistics: tuple[Tensor, Tensor] | None = None,
) -> None:
    """The same in torch ops, for CPU training: log-softmax once, everything else in place. g: (),
    or (C,) of each token."""
    smoothing, cap = criterion.label_smoothing, criterion.softcap
    kept = targets != criterion.ignore_index
    index = targets.where(kept, 0).unsqueeze(1)
    x = logits.to(losses.dtype)
    slope = None
    if cap is not None:
        x = torch.tanh(x / cap)
        slope = 1 - x.square()
        x = x * cap
    if statistics is not None:
        statistics[1].copy_(is_top(x, targets, kept))
    log_p = torch.log_softmax(x, 1)
    lse = (x[:, :1] - log_p[:, :1]).squeeze(1)
    if statistics is not None:
        statistics[0].copy_(lse.where(kept, 0.0))
    scale = torch.ones_like(lse) if class_weight is None else class_weight[index.squeeze(1)]
    scale = scale * (1 - smoothing)
    loss = -scale * log_p.gather(1, index).squeeze(1) + criterion.z_loss * lse.square()
    share: float | torch.Tensor = 0.0
    if smoothing:
        apart = log_p if class_weight is None else log_p * class_weight
        loss = loss - smoothing * apart.mean(1)
        share = smoothing * (1.0 if class_weight is None else class_weight.mean())
    losses.copy_(loss.where(kept, 0.0))
    kept_g = kept.to(lse.dtype) * g
    d = log_p.exp_().mul_(((scale + share + 2 * criterion.z_loss * lse) * kept_g).unsqueeze(1))
    d.scatter_add_(1, index, (-scale * kept_g).unsqueeze(1))
    if smoothing:
        even = torch.ones_like(d[0]) if class_weight is None else class_weight
        d.addmm_(kept_g.unsqueeze(1), even.to(d.dtype).unsqueeze(0), alpha=-smoothing / d.shape[1])
    logits.copy_(d if slope is None else d.mul_(slope))


def fused_loss(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    class_weight: Tensor | None,
    criterion: Criterion,
    mean: bool,
    needs: tuple[bool, bool, bool],
    on_triton: bool,
    statistics: bool = False,
) -> tuple[Tensor, KeptGradients, Tensor, Tensor]:
    """Walk the chunks; returns the loss, the gradients of (hidden, weight, bias) that `needs`
    names, lse (M,) and correct (M,), both of no elements without statistics."""
    m, wide_dtype = hidden.shape[0], statistics_dtype(hidden)
    losses = hidden.new_empty(m, dtype=wide_dtype)
    lse, correct = empty_statistics(hidden, statistics)
    g = torch.ones((), dtype=wide_dtype, device=hidden.device)
    if mean:
        g = g / denominator(targets, criterion.ignore_index, class_weight)
    magnified = magnification(hidden, g, class_weight)
    scale = g * magnified
    classes = class_table(class_weight, hidden) if on_triton else None
    sums = GradientSums(hidden, weight, needs, magnified)

    def walk() -> None:  # a function, for the buffer of the logits to end with it
        for part, logits in token_chunks.logits(hidden, weight, bias):
            found = (lse[part], correct[part]) if statistics else None
            chunk = logits, targets[part]
            if on_triton:
                loss_and_gradient(*chunk, classes, criterion, scale, losses[part], found)
            else:
                loss_and_gradient_ref(*chunk, class_weight, criterion, scale, losses[part], found)
            sums.add(part, logits)

    walk()
    return losses.sum() * g, sums.kept(), lse, correct


def empty_statistics(hidden: Tensor, wanted: bool) -> tuple[Tensor, Tensor]:
    """lse (M,) and correct (M,) of hidden (M, N), or nothing."""
    m = hidden.shape[0] if wanted else 0
    lse = hidden.new_empty(m, dtype=statistics_dtype(hidden))
    return lse, hidden.new_empty(m, dtype=torch.bool)


FusedResults = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


@torch.library.custom_op("lockgate::linear_cross_entropy", mutates_args=())
def linear_cross_entropy_op(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    class_weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    softcap: float | None,
    mean: bool,
    need_hidden: bool,
    need_weight: bool,
    need_bias: bool,
    on_triton: bool,
    statistics: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The torch op of `linear_cross_entropy` for a mean or a sum; returns the loss,
    `KeptGradients`, lse and correct."""
    criterion = Criterion(ignore_index, label_smoothing, z_loss, softcap)
    needs = need_hidden, need_weight, need_bias
    loss, gradients, lse, correct = fused_loss(
        hidden, weight, bias, targets, class_weight, criterion, mean, needs, on_triton, statistics
    )
    return loss, *gradients, lse, correct


@linear_cross_entropy_op.register_fake
def _(
    hidden, weight, bias, targets, class_weight, ig, ls, z, cap, mean, need_h, need_w, need_b, on,
    statistics,
):  # fmt: skip
    return empty_results(hidden, weight, (need_h, need_w, need_b), statistics)


def empty_results(
    hidden: Tensor, weight: Tensor, needs: tuple[bool, bool, bool], statistics: bool
) -> FusedResults:
    """Tensors of the shapes and types that the ops of a mean or a sum return."""
    loss = hidden.new_empty((), dtype=statistics_dtype(hidden))
    gradients = KeptGradients.empty(hidden, weight, needs, kept_dtype(hidden))
    return loss, *gradients, *empty_statistics(hidden, statistics)


register_scaling(linear_cross_entropy_op, "linear_cross_entropy", arguments=15)
