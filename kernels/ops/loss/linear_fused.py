"""Loss and gradients of linear layer + cross entropy in one walk over chunks of tokens.

Tokens go through in chunks of C. For each chunk: logits = h Wᵀ + b into one reused buffer, their
loss and gradient in place (the formulas of kernels/ops/loss/crossentropy.py), then
dh = dlogits · W, dW += dlogitsᵀ · h and db += Σ dlogits in fp32. With "mean" or "sum" the gradients
are known up to the scalar that arrives in the backward, so the forward makes them and the backward
only scales.

Peak memory beyond the inputs, N hidden, V vocabulary, M tokens, V' = V padded to 64:
    forward     C·V'·e (buffer) + M·N·e (dh) + 4·V·N (dW) + 4·M (losses)
    backward    2·M·N·e (dh, twice) + 4·V·N (dW) + V·N·e (dW as the weight is) + a slice
With 16-bit types that is 3·V·N·e, dh apart, in the backward, and less in the forward from N = C on.
Bytes for n chunks: n(2VNe + 8VN) + 5MVe + 3MNe + 16M, of which the row kernel 2MVe + 12M; a bias
adds MVe. With class weights, and where a row does not fit the registers that can share a program
(above 32768 classes on sm_80, whose register file is 256 KiB), logits are read a second time, from
cache.

dh is kept as the hidden states are, M·N·e: a gradient of the loss that is no power of two (1/3 of
three micro-steps) rounds it once more.
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
from kernels.ops.loss.criterion import Criterion, denominator
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
from kernels.ops.loss.saved_gradients import magnification, scaling_backward, scaling_context

# Classes of a row in registers; above, and with class weights, it is read twice.
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
    for part in tl.static_range(TILES):
        cols = part * BLOCK + tile
        x = capped(widened(kept_row[part], n >> 31, ACC), softcap, HAS_SOFTCAP)
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
    stride,
    n,
    ignore_index,
    smoothing,
    z_loss,
    softcap,
    HAS_WEIGHT: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    ACC: tl.constexpr,
    VEC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The same where the registers that share a program cannot hold a row, or a row of class
    weights beside it: each row is read a second time right after the first, from cache."""
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(TARGETS + row)
    kept = target != ignore_index
    lse, hit, weighted_sum = read_row(
        LOGITS, WEIGHT, row, stride, tl.where(kept, n, 0), 0, n, target, softcap,
        HAS_WEIGHT, HAS_SOFTCAP, ACC, VEC, BLOCK,
    )  # fmt: skip
    loss = token_loss(
        lse, hit, weighted_sum, target, WEIGHT, WEIGHT_SUM, n, smoothing, z_loss, HAS_WEIGHT, ACC
    )
    tl.store(LOSSES + row, tl.where(kept, loss, 0.0))
    # every warp has read the columns at the row's edges for itself before one of them writes there
    tl.debug_barrier()
    write_row(
        LOGITS, LOGITS, WEIGHT, WEIGHT_SUM, row, stride, stride, n, 0, n, target, kept, lse,
        tl.load(G).to(ACC), smoothing, z_loss, softcap, HAS_WEIGHT, HAS_SOFTCAP, ACC, VEC, BLOCK,
    )  # fmt: skip


def loss_and_gradient(
    logits: Tensor,
    targets: Tensor,
    classes: tuple[Tensor, Tensor] | None,
    criterion: Criterion,
    g: Tensor,
    losses: Tensor,
) -> None:
    """One chunk: `losses` (C,) from `logits` (C, V) of `token_chunks.buffer`, overwritten with
    g·dlogits. `classes` is the `class_table`, one for all chunks."""
    rows, n = logits.shape
    layout = logits.stride(0), n, criterion.ignore_index
    options = criterion.label_smoothing, criterion.z_loss, criterion.softcap or 1.0
    has_softcap = criterion.softcap is not None
    types = accumulator_type(logits), vector_length(logits)
    whole = classes is None and n <= LARGEST
    kernel = "linear_cross_entropy" + ("" if whole else "_streamed")
    cfg = launch_config(kernel, logits, n)
    if cfg.reads == 1:
        linear_cross_entropy_kernel[(rows,)](
            logits, targets, g, losses, *layout, *options, has_softcap, *types, cfg.block,
            triton.cdiv(n, cfg.block), **cfg.options,
        )  # fmt: skip
        return
    linear_cross_entropy_streamed_kernel[(rows,)](
        logits, targets, *(classes or (logits, logits)), g, losses, *layout, *options,
        classes is not None, has_softcap, *types, cfg.block, **cfg.options,
    )  # fmt: skip


def loss_and_gradient_ref(
    logits: Tensor,
    targets: Tensor,
    class_weight: Tensor | None,
    criterion: Criterion,
    g: Tensor,
    losses: Tensor,
) -> None:
    """The same in torch ops, for CPU training: log-softmax once, everything else in place."""
    smoothing, cap = criterion.label_smoothing, criterion.softcap
    kept = targets != criterion.ignore_index
    index = targets.where(kept, 0).unsqueeze(1)
    x = logits.to(losses.dtype)
    slope = None
    if cap is not None:
        x = torch.tanh(x / cap)
        slope = 1 - x.square()
        x = x * cap
    log_p = torch.log_softmax(x, 1)
    lse = (x[:, :1] - log_p[:, :1]).squeeze(1)
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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Walk the chunks; returns the loss, dh (M, N), dW (V, N) and db (V,) in the wide type, each
    empty when it is not needed, and the power of two that all three are too large by."""
    need_hidden, need_weight, need_bias = needs
    m = hidden.shape[0]
    wide_dtype = statistics_dtype(hidden)
    losses = hidden.new_empty(m, dtype=wide_dtype)
    dhidden = torch.empty_like(hidden, memory_format=torch.contiguous_format)
    dhidden = dhidden if need_hidden else hidden.new_empty(0)
    dweight = hidden.new_zeros(weight.shape if need_weight else (0,), dtype=wide_dtype)
    dbias = hidden.new_zeros(weight.shape[0] if need_bias else 0, dtype=wide_dtype)
    g = torch.ones((), dtype=wide_dtype, device=hidden.device)
    if mean:
        g = g / denominator(targets, criterion.ignore_index, class_weight)
    magnified = magnification(hidden, g, class_weight)
    scale = g * magnified
    classes = class_table(class_weight, hidden) if on_triton else None
    for part, logits in token_chunks.logits(hidden, weight, bias):
        if on_triton:
            loss_and_gradient(logits, targets[part], classes, criterion, scale, losses[part])
        else:
            loss_and_gradient_ref(
                logits, targets[part], class_weight, criterion, scale, losses[part]
            )
        if need_hidden:
            torch.mm(logits, weight, out=dhidden[part])
        if need_weight:
            token_chunks.accumulate(dweight, logits, hidden[part])
        if need_bias:
            dbias += logits.sum(0, dtype=wide_dtype)
    return losses.sum() * g, dhidden, dweight, dbias, magnified


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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The torch op of `linear_cross_entropy` for a mean or a sum; as `fused_loss` returns."""
    criterion = Criterion(ignore_index, label_smoothing, z_loss, softcap)
    needs = need_hidden, need_weight, need_bias
    return fused_loss(
        hidden, weight, bias, targets, class_weight, criterion, mean, needs, on_triton
    )


@linear_cross_entropy_op.register_fake
def _(
    hidden, weight, bias, targets, class_weight, ig, ls, z, cap, mean, need_h, need_w, need_b, on
):
    return empty_results(hidden, weight, need_h, need_w, need_b)


def empty_results(
    hidden: Tensor, weight: Tensor, need_hidden: bool, need_weight: bool, need_bias: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Tensors of the shapes and types that the ops of a mean or a sum return."""
    wide_dtype = statistics_dtype(hidden)
    dhidden = torch.empty_like(hidden, memory_format=torch.contiguous_format)
    return (
        hidden.new_empty((), dtype=wide_dtype),
        dhidden if need_hidden else hidden.new_empty(0),
        hidden.new_empty(weight.shape if need_weight else (0,), dtype=wide_dtype),
        hidden.new_empty(weight.shape[0] if need_bias else 0, dtype=wide_dtype),
        hidden.new_empty((), dtype=wide_dtype),
    )


linear_cross_entropy_op.register_autograd(scaling_backward, setup_context=scaling_context)
