"""Linear layer + cross entropy without ever holding all logits: loss(h · Wᵀ, targets).

Tokens go through in chunks of C. For each chunk: logits = h Wᵀ into one reused buffer, their loss
and gradient in place (the formulas of kernels/crossentropy.py), then dh = dlogits · W and
dW += dlogitsᵀ · h in fp32. With "mean" or "sum" the gradients are known up to the scalar that
arrives in the backward, so the forward makes them and the backward only scales. With "none" the
backward walks the chunks again.

Peak memory beyond the inputs, N hidden, V vocabulary, M tokens, V' = V padded to 64:
    C·V'·e (buffer) + M·N·e (dh) + 4·V·N (dW) + 4·M (losses)
Bytes for n chunks: n(2VNe + 8VN) + 5MVe + 3MNe + 16M, of which the row kernel 2MVe + 12M.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor, nn

from kernels.backend import KernelError, wants_triton
from kernels.crossentropy import (
    Reduction,
    capped,
    class_arguments,
    cross_entropy_bwd_kernel,
    cross_entropy_fwd_kernel,
    cross_entropy_ref,
    denominator,
    gradient_scales,
    reduced,
    shifted,
    token_loss,
)
from kernels.layout import vector, wide
from kernels.rmsnorm import statistics_dtype
from kernels.settings import launch

# Logits held at a time: 128 MiB of bf16 on a GPU, where big chunks read the weight less often;
# what stays in the cache on a CPU.
GPU_LOGITS = 1 << 26
CPU_LOGITS = 1 << 20


@dataclass(frozen=True)
class Criterion:
    """What is asked of the loss, as in `kernels.cross_entropy`."""

    ignore_index: int = -100
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    softcap: float | None = None


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    class_weight: Tensor | None = None,
    shift: bool = False,
    reduction: Reduction = "mean",
    group: "torch.distributed.ProcessGroup | None" = None,
) -> Tensor:
    """Cross entropy of hidden (..., N) through the output layer weight (V, N), in fp32.

    targets: (...). Under autocast both factors are cast as F.linear would cast them. With `group`
    the vocabulary is split over its ranks in order, `weight` is this rank's rows, hidden and
    targets are the same on all of them, and so are the loss and hidden's gradient. The other
    arguments are those of `kernels.cross_entropy`.
    """
    kind = hidden.device.type
    if kind != "meta" and torch.is_autocast_enabled(kind):
        hidden = hidden.to(torch.get_autocast_dtype(kind))
    weight = weight.to(hidden.dtype)
    if shift:
        targets = shifted(targets, ignore_index)
    rows, flat = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    options = (ignore_index, label_smoothing, z_loss, softcap)
    fused = torch.is_grad_enabled() and reduction in ("mean", "sum")
    needs = hidden.requires_grad, weight.requires_grad
    on_triton = wants_triton(hidden)
    if group is not None:
        if reduction not in ("mean", "sum"):
            raise KernelError("linear_cross_entropy: a split vocabulary needs a mean or a sum")
        from kernels.vocab_parallel import vocab_parallel_op

        wanted = [needed and torch.is_grad_enabled() for needed in needs]
        return vocab_parallel_op(
            rows, weight, flat, class_weight, *options, reduction == "mean", *wanted, on_triton,
            group.group_name,
        )[0]  # fmt: skip
    if fused and any(needs):
        return linear_cross_entropy_op(
            rows, weight, flat, class_weight, *options, reduction == "mean", *needs, on_triton
        )[0]
    if on_triton or not torch.is_grad_enabled():
        losses, _ = linear_losses_op(rows, weight, flat, class_weight, *options, on_triton)
        losses = losses.view(targets.shape)
        return reduced(losses, targets, ignore_index, class_weight, reduction)
    return linear_cross_entropy_ref(
        hidden, weight, targets, ignore_index=ignore_index, label_smoothing=label_smoothing,
        z_loss=z_loss, softcap=softcap, class_weight=class_weight, reduction=reduction,
    )  # fmt: skip


def linear_cross_entropy_ref(
    hidden: Tensor,
    weight: Tensor,
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
    """The specification in plain torch: all logits at once."""
    return cross_entropy_ref(
        F.linear(hidden, weight), targets, ignore_index=ignore_index,
        label_smoothing=label_smoothing, z_loss=z_loss, softcap=softcap,
        class_weight=class_weight, shift=shift, reduction=reduction,
    )  # fmt: skip


class LinearCrossEntropy(nn.Module):
    """An output layer that returns the loss; it owns its weight, so ZeRO-3 gathers it in time."""

    def __init__(self, hidden_size: int, vocabulary: int, *, dtype: torch.dtype | None = None):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocabulary, hidden_size, dtype=dtype))
        nn.init.normal_(self.weight, std=hidden_size**-0.5)

    def forward(self, hidden: Tensor, targets: Tensor, **options) -> Tensor:
        """hidden (..., N), targets (...); options as in `kernels.linear_cross_entropy`."""
        return linear_cross_entropy(hidden, self.weight, targets, **options)


@triton.jit(do_not_specialize=["n", "ignore_index"])
def linear_cross_entropy_kernel(
    LOGITS,  # (m, stride): read, then overwritten with their gradient
    TARGETS,  # (m,) int64
    WEIGHT,  # (n,) class weights, or nothing
    WEIGHT_SUM,  # (), or nothing
    G,  # (): the gradient of every loss
    LOSSES,  # (m,)
    stride,  # of our own buffer: a multiple of 64, so that n may be odd
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
    """A whole row in registers, of one thread block or of a cluster: read once, written once."""
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(TARGETS + row)
    kept = target != ignore_index
    place = target.to(tl.int32)
    cols = tl.arange(0, BLOCK)
    inside = cols < n
    vectors = cols // VEC * VEC < n  # up to the end of a vector: into the padding, never past it
    x = tl.load(LOGITS + row * stride + cols, vectors & kept, other=0.0).to(ACC)
    x = tl.where(inside, capped(x, softcap, HAS_SOFTCAP), -float("inf"))
    top = tl.max(x, 0)
    top = tl.where(top == -float("inf"), 0.0, top)
    weight = 1.0
    weighted = tl.where(inside, x, 0.0)
    if HAS_WEIGHT:
        weight = tl.load(WEIGHT + cols, inside, other=0.0).to(ACC)
        weighted *= weight
    hit = tl.sum(tl.where(cols == place, x, 0.0), 0)
    weighted_sum = tl.sum(weighted, 0)
    e = tl.exp(x - top)
    total = tl.sum(e, 0)
    lse = top + tl.log(total)
    loss = token_loss(
        lse, hit, weighted_sum, target, WEIGHT, WEIGHT_SUM, n, smoothing, z_loss, HAS_WEIGHT, ACC
    )
    tl.store(LOSSES + row, tl.where(kept, loss, 0.0))
    target_weight, p_scale, smooth = gradient_scales(
        target, lse, WEIGHT, WEIGHT_SUM, n, smoothing, z_loss, HAS_WEIGHT, ACC
    )
    g = tl.where(kept, tl.load(G).to(ACC), 0.0)
    # exp(x - top) / total is p without a second exponential; ignored rows were never read
    d = e * tl.where(kept, p_scale * g / total, 0.0) - (g * smooth) * weight
    d -= tl.where(cols == place, g * target_weight, 0.0)
    if HAS_SOFTCAP:
        d *= 1 - (x / softcap) * (x / softcap)
    tl.store(LOGITS + row * stride + cols, d.to(LOGITS.dtype.element_ty), vectors)


def chunk_rows(rows: int, vocabulary: int, device: torch.device) -> int:
    """Tokens per chunk: a power of two, at least 64."""
    budget = CPU_LOGITS if device.type == "cpu" else GPU_LOGITS
    most = max(64, 1 << max(0, (budget // max(vocabulary, 1)).bit_length() - 1))
    return max(1, min(rows, most))


def logits_buffer(hidden: Tensor, rows: int, vocabulary: int) -> Tensor:
    """(rows, V) logits inside rows padded to 64 elements, so that each begins on a boundary."""
    padded = triton.cdiv(vocabulary, 64) * 64
    return hidden.new_empty(rows, padded)[:, :vocabulary]


def accumulate(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += leftᵀ · right in the wide type, whatever the factors are."""
    if left.dtype == total.dtype:
        total.addmm_(left.t(), right)
    elif left.device.type == "cpu":
        total.addmm_(left.t().to(total.dtype), right.to(total.dtype))
    else:
        torch.addmm(total, left.t(), right, out_dtype=total.dtype, out=total)


def loss_and_gradient(
    logits: Tensor,
    targets: Tensor,
    class_weight: Tensor | None,
    criterion: Criterion,
    g: Tensor,
    losses: Tensor,
) -> None:
    """One chunk: `losses` (C,) from `logits` (C, V) of `logits_buffer`, which become g·dlogits."""
    rows, n = logits.shape
    weights = class_arguments(class_weight, logits)
    options = (criterion.label_smoothing, criterion.z_loss, criterion.softcap or 1.0)
    flags = class_weight is not None, criterion.softcap is not None
    how = launch("linear_cross_entropy", logits, n)
    if how.block >= n:
        linear_cross_entropy_kernel[(rows,)](
            logits, targets, *weights, g, losses, logits.stride(0), n, criterion.ignore_index,
            *options, *flags, wide(logits), vector(logits), how.block, **how.options,
        )  # fmt: skip
        return
    # One thread block cannot hold the row and the device has no clusters: read it twice.
    lse = torch.empty_like(losses)
    layout = logits.stride(0), n, criterion.ignore_index, 0, n
    types = wide(logits), vector(logits), how.block
    cross_entropy_fwd_kernel[(rows,)](
        logits, targets, *weights, losses, lse, lse, *layout, *options, *flags, False, *types,
        **how.options,
    )  # fmt: skip
    cross_entropy_bwd_kernel[(rows,)](
        logits, targets, *weights, lse, g, logits, *layout, 0, *options, *flags, *types,
        **how.options,
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


def fused(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    class_weight: Tensor | None,
    criterion: Criterion,
    mean: bool,
    need_hidden: bool,
    need_weight: bool,
    on_triton: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Walk the chunks; returns the loss, dh (M, N) and dW (V, N) in the wide type, each empty
    when it is not needed."""
    m = hidden.shape[0]
    wide_dtype = statistics_dtype(hidden)
    losses = hidden.new_empty(m, dtype=wide_dtype)
    dhidden = torch.empty_like(hidden, memory_format=torch.contiguous_format)
    dhidden = dhidden if need_hidden else hidden.new_empty(0)
    shape = weight.shape if need_weight else (0,)
    dweight = hidden.new_zeros(shape, dtype=wide_dtype)
    g = torch.ones((), dtype=wide_dtype, device=hidden.device)
    if mean:
        g = g / denominator(targets, criterion.ignore_index, class_weight)
    chunk = chunk_rows(m, weight.shape[0], hidden.device)
    buffer = logits_buffer(hidden, chunk, weight.shape[0])
    step = loss_and_gradient if on_triton else loss_and_gradient_ref
    for first in range(0, m, chunk):
        part = slice(first, min(first + chunk, m))
        logits = buffer[: part.stop - first]
        torch.mm(hidden[part], weight.t(), out=logits)
        step(logits, targets[part], class_weight, criterion, g, losses[part])
        if need_hidden:
            torch.mm(logits, weight, out=dhidden[part])
        if need_weight:
            accumulate(dweight, logits, hidden[part])
    return losses.sum() * g, dhidden, dweight


@torch.library.custom_op("lockgate::linear_cross_entropy", mutates_args=())
def linear_cross_entropy_op(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    class_weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    softcap: float | None,
    mean: bool,
    need_hidden: bool,
    need_weight: bool,
    on_triton: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The torch op of `linear_cross_entropy` for a mean or a sum; returns (loss, dh, dW)."""
    criterion = Criterion(ignore_index, label_smoothing, z_loss, softcap)
    return fused(
        hidden, weight, targets, class_weight, criterion, mean, need_hidden, need_weight, on_triton
    )


@linear_cross_entropy_op.register_fake
def _(hidden, weight, targets, class_weight, ig, ls, z, cap, mean, need_hidden, need_weight, on):
    wide_dtype = statistics_dtype(hidden)
    dhidden = torch.empty_like(hidden, memory_format=torch.contiguous_format)
    return (
        hidden.new_empty((), dtype=wide_dtype),
        dhidden if need_hidden else hidden.new_empty(0),
        hidden.new_empty(weight.shape if need_weight else (0,), dtype=wide_dtype),
    )


def scaling_context(ctx, inputs, output):
    """Save the gradients that the forward made; nobody differentiates through them."""
    _, dhidden, dweight = output
    ctx.save_for_backward(dhidden, dweight)
    ctx.mark_non_differentiable(dhidden, dweight)
    ctx.set_materialize_grads(False)
    ctx.weight_dtype, ctx.inputs = inputs[1].dtype, len(inputs)


def scaling_backward(ctx, dloss, *_):
    """Scale the saved gradients out of place: a second backward finds them as they were."""
    nothing = (None,) * (ctx.inputs - 2)
    if dloss is None:
        return None, None, *nothing
    dhidden, dweight = ctx.saved_tensors
    dh = (dhidden * dloss).to(dhidden.dtype) if ctx.needs_input_grad[0] else None
    dw = (dweight * dloss).to(ctx.weight_dtype) if ctx.needs_input_grad[1] else None
    return dh, dw, *nothing


linear_cross_entropy_op.register_autograd(scaling_backward, setup_context=scaling_context)


@torch.library.custom_op("lockgate::linear_losses", mutates_args=())
def linear_losses_op(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    class_weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    softcap: float | None,
    on_triton: bool,
) -> tuple[Tensor, Tensor]:
    """Per-token losses alone, chunk by chunk; returns (losses (M,), lse (M,))."""
    m, vocabulary = hidden.shape[0], weight.shape[0]
    losses = hidden.new_empty(m, dtype=statistics_dtype(hidden))
    lse = torch.empty_like(losses)
    chunk = chunk_rows(m, vocabulary, hidden.device)
    buffer = logits_buffer(hidden, chunk, vocabulary)
    for first in range(0, m, chunk):
        part = slice(first, min(first + chunk, m))
        logits = buffer[: part.stop - first]
        torch.mm(hidden[part], weight.t(), out=logits)
        if not on_triton:
            losses[part] = cross_entropy_ref(
                logits, targets[part], ignore_index=ignore_index, label_smoothing=label_smoothing,
                z_loss=z_loss, softcap=softcap, class_weight=class_weight, reduction="none",
            )  # fmt: skip
            continue
        how = launch("cross_entropy_fwd", logits, vocabulary)
        cross_entropy_fwd_kernel[(part.stop - first,)](
            logits, targets[part], *class_arguments(class_weight, logits), losses[part],
            lse[part], lse, logits.stride(0), vocabulary, ignore_index, 0, vocabulary,
            label_smoothing, z_loss, softcap or 1.0, class_weight is not None,
            softcap is not None, False, wide(logits), vector(logits), how.block, **how.options,
        )  # fmt: skip
    return losses, lse


@linear_losses_op.register_fake
def _(hidden, weight, targets, *_):
    losses = hidden.new_empty(hidden.shape[0], dtype=statistics_dtype(hidden))
    return losses, torch.empty_like(losses)


@torch.library.custom_op("lockgate::linear_losses_backward", mutates_args=())
def linear_losses_backward_op(
    dlosses: Tensor,
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    lse: Tensor,
    class_weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    softcap: float | None,
) -> tuple[Tensor, Tensor]:
    """The backward of `lockgate::linear_losses`: the chunks again; returns (dh, dW)."""
    m, vocabulary = hidden.shape[0], weight.shape[0]
    dhidden = torch.empty_like(hidden, memory_format=torch.contiguous_format)
    dweight = torch.zeros_like(weight, dtype=statistics_dtype(hidden))
    chunk = chunk_rows(m, vocabulary, hidden.device)
    buffer = logits_buffer(hidden, chunk, vocabulary)
    for first in range(0, m, chunk):
        part = slice(first, min(first + chunk, m))
        logits = buffer[: part.stop - first]
        torch.mm(hidden[part], weight.t(), out=logits)
        how = launch("cross_entropy_bwd", logits, vocabulary)
        cross_entropy_bwd_kernel[(part.stop - first,)](
            logits, targets[part], *class_arguments(class_weight, logits), lse[part],
            dlosses[part], logits, logits.stride(0), vocabulary, ignore_index, 0, vocabulary,
            dlosses.stride(0), label_smoothing, z_loss, softcap or 1.0, class_weight is not None,
            softcap is not None, wide(logits), vector(logits), how.block, **how.options,
        )  # fmt: skip
        torch.mm(logits, weight, out=dhidden[part])
        accumulate(dweight, logits, hidden[part])
    return dhidden, dweight.to(weight.dtype)


@linear_losses_backward_op.register_fake
def _(dlosses, hidden, weight, *_):
    shape = torch.contiguous_format
    return (
        torch.empty_like(hidden, memory_format=shape),
        torch.empty_like(weight, memory_format=shape),
    )


def _losses_context(ctx, inputs, output):
    hidden, weight, targets, class_weight, *options, _ = inputs
    ctx.save_for_backward(hidden, weight, targets, output[1], class_weight)
    ctx.options = options
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _losses_backward(ctx, dlosses, _):
    nothing = (None,) * 7
    if dlosses is None:
        return None, None, *nothing
    return *linear_losses_backward_op(dlosses, *ctx.saved_tensors, *ctx.options), *nothing


linear_losses_op.register_autograd(_losses_backward, setup_context=_losses_context)
