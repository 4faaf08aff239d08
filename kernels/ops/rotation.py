"""Kernels and torch ops of RoPE, with and without QK-norm: formulas in kernels/ops/rotary.py."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.launch.config import LaunchConfig, launch_config
from kernels.launch.derivatives import differentiable_once
from kernels.launch.dtypes import accumulator_type, statistics_dtype
from kernels.launch.reduction import column_sum

# Heads that one program turns with the cos and sin it holds in registers.
HEADS = 8


@triton.jit
def _place(tokens, heads, HEADS: tl.constexpr, ROWS: tl.constexpr):
    """(sequence, its tokens (ROWS, 1), first and last head) of a program of `_grid`."""
    tiles = tl.cdiv(tokens, ROWS)
    batch = (tl.program_id(0) // tiles).to(tl.int64)
    token = (tl.program_id(0) % tiles).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    first = tl.program_id(1) * HEADS
    return batch, token[:, None], first, tl.minimum(first + HEADS, heads)


@triton.jit
def _turn_heads(
    X,
    Y,
    WEIGHT,
    first,
    last,
    at_x,  # (tokens, 1): offset of each token in X
    at_y,
    stride_h,
    cos,  # (tokens, half)
    sin,
    eps,
    mask,
    NORM: tl.constexpr,
    ACC: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK: tl.constexpr,
):
    cols = tl.arange(0, BLOCK)
    if NORM:
        w1 = tl.load(WEIGHT + cols, cols < HALF, other=0.0).to(ACC)[None, :]
        w2 = tl.load(WEIGHT + HALF + cols, cols < HALF, other=0.0).to(ACC)[None, :]
    for number in range(first, last):
        head = number + tl.full((), 0, tl.int64)  # heads may lie far apart
        x = X + at_x + head * stride_h + cols[None, :]
        y = Y + at_y + head * (2 * HALF) + cols[None, :]
        x1 = tl.load(x, mask, other=0.0).to(ACC)
        x2 = tl.load(x + HALF, mask, other=0.0).to(ACC)
        if NORM:
            rstd = tl.rsqrt((tl.sum(x1 * x1, 1) + tl.sum(x2 * x2, 1)) / (2 * HALF) + eps)
            x1 *= rstd[:, None] * w1
            x2 *= rstd[:, None] * w2
        tl.store(y, (x1 * cos - x2 * sin).to(Y.dtype.element_ty), mask)
        tl.store(y + HALF, (x2 * cos + x1 * sin).to(Y.dtype.element_ty), mask)


@triton.jit(do_not_specialize=["tokens", "q_heads", "k_heads"])
def rope_kernel(
    Q,  # (batch, tokens, q_heads, 2·HALF)
    K,  # (batch, tokens, k_heads, 2·HALF)
    COS,  # (tokens, HALF)
    SIN,  # (tokens, HALF)
    Q_WEIGHT,  # (2·HALF,) or nothing
    K_WEIGHT,
    Q_OUT,  # contiguous
    K_OUT,
    tokens,
    q_heads,
    k_heads,
    q_stride_b,
    q_stride_s,
    q_stride_h,
    k_stride_b,
    k_stride_s,
    k_stride_h,
    eps,
    INVERSE: tl.constexpr,
    NORM: tl.constexpr,
    ACC: tl.constexpr,
    HALF: tl.constexpr,
    HEADS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    batch, token, first, last = _place(tokens, q_heads + k_heads, HEADS, ROWS)
    cols = tl.arange(0, BLOCK)
    mask = (token < tokens) & (cols < HALF)[None, :]
    cos = tl.load(COS + token * HALF + cols[None, :], mask, other=0.0).to(ACC)
    sin = tl.load(SIN + token * HALF + cols[None, :], mask, other=0.0).to(ACC)
    if INVERSE:
        sin = -sin
    at = batch * tokens + token
    _turn_heads(
        Q, Q_OUT, Q_WEIGHT, tl.minimum(first, q_heads), tl.minimum(last, q_heads),
        batch * q_stride_b + token * q_stride_s, at * q_heads * (2 * HALF), q_stride_h,
        cos, sin, eps, mask, NORM, ACC, HALF, BLOCK,
    )  # fmt: skip
    _turn_heads(
        K, K_OUT, K_WEIGHT, tl.maximum(first - q_heads, 0), tl.maximum(last - q_heads, 0),
        batch * k_stride_b + token * k_stride_s, at * k_heads * (2 * HALF), k_stride_h,
        cos, sin, eps, mask, NORM, ACC, HALF, BLOCK,
    )  # fmt: skip


@triton.jit
def _turn_heads_back(
    DY,
    X,
    WEIGHT,
    DX,
    DWEIGHT,
    first,
    last,
    at_dy,
    at_x,
    at_dx,
    stride_dy,
    stride_x,
    cos,
    sin,
    eps,
    mask,
    ACC: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK: tl.constexpr,
):
    cols = tl.arange(0, BLOCK)
    w1 = tl.load(WEIGHT + cols, cols < HALF, other=0.0).to(ACC)[None, :]
    w2 = tl.load(WEIGHT + HALF + cols, cols < HALF, other=0.0).to(ACC)[None, :]
    dw1 = tl.zeros((BLOCK,), ACC)
    dw2 = tl.zeros((BLOCK,), ACC)
    for number in range(first, last):
        head = number + tl.full((), 0, tl.int64)
        x = X + at_x + head * stride_x + cols[None, :]
        dy = DY + at_dy + head * stride_dy + cols[None, :]
        dx = DX + at_dx + head * (2 * HALF) + cols[None, :]
        x1 = tl.load(x, mask, other=0.0).to(ACC)
        x2 = tl.load(x + HALF, mask, other=0.0).to(ACC)
        dy1 = tl.load(dy, mask, other=0.0).to(ACC)
        dy2 = tl.load(dy + HALF, mask, other=0.0).to(ACC)
        d1 = dy1 * cos + dy2 * sin
        d2 = dy2 * cos - dy1 * sin
        rstd = tl.rsqrt((tl.sum(x1 * x1, 1) + tl.sum(x2 * x2, 1)) / (2 * HALF) + eps)[:, None]
        x1 *= rstd
        x2 *= rstd
        mean = (tl.sum(d1 * w1 * x1, 1) + tl.sum(d2 * w2 * x2, 1))[:, None] / (2 * HALF)
        tl.store(dx, ((d1 * w1 - x1 * mean) * rstd).to(DX.dtype.element_ty), mask)
        tl.store(dx + HALF, ((d2 * w2 - x2 * mean) * rstd).to(DX.dtype.element_ty), mask)
        dw1 += tl.sum(d1 * x1, 0)
        dw2 += tl.sum(d2 * x2, 0)
    tl.store(DWEIGHT + cols, dw1, cols < HALF)
    tl.store(DWEIGHT + HALF + cols, dw2, cols < HALF)


@triton.jit(do_not_specialize=["tokens", "q_heads", "k_heads"])
def rope_norm_bwd_kernel(
    DQ_OUT,  # as q
    DK_OUT,  # as k
    Q,
    K,
    COS,
    SIN,
    Q_WEIGHT,
    K_WEIGHT,
    DQ,  # contiguous
    DK,
    DWEIGHT,  # (programs, 2, 2·HALF): partial sums for q_weight and k_weight
    tokens,
    q_heads,
    k_heads,
    dq_stride_b,
    dq_stride_s,
    dq_stride_h,
    dk_stride_b,
    dk_stride_s,
    dk_stride_h,
    q_stride_b,
    q_stride_s,
    q_stride_h,
    k_stride_b,
    k_stride_s,
    k_stride_h,
    eps,
    ACC: tl.constexpr,
    HALF: tl.constexpr,
    HEADS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    batch, token, first, last = _place(tokens, q_heads + k_heads, HEADS, ROWS)
    cols = tl.arange(0, BLOCK)
    mask = (token < tokens) & (cols < HALF)[None, :]
    cos = tl.load(COS + token * HALF + cols[None, :], mask, other=0.0).to(ACC)
    sin = tl.load(SIN + token * HALF + cols[None, :], mask, other=0.0).to(ACC)
    at = batch * tokens + token
    program = tl.program_id(1).to(tl.int64) * tl.num_programs(0) + tl.program_id(0)
    DWEIGHT += program * (4 * HALF)
    _turn_heads_back(
        DQ_OUT, Q, Q_WEIGHT, DQ, DWEIGHT, tl.minimum(first, q_heads), tl.minimum(last, q_heads),
        batch * dq_stride_b + token * dq_stride_s, batch * q_stride_b + token * q_stride_s,
        at * q_heads * (2 * HALF), dq_stride_h, q_stride_h, cos, sin, eps, mask, ACC, HALF, BLOCK,
    )  # fmt: skip
    _turn_heads_back(
        DK_OUT, K, K_WEIGHT, DK, DWEIGHT + 2 * HALF, tl.maximum(first - q_heads, 0),
        tl.maximum(last - q_heads, 0), batch * dk_stride_b + token * dk_stride_s,
        batch * k_stride_b + token * k_stride_s, at * k_heads * (2 * HALF), dk_stride_h,
        k_stride_h, cos, sin, eps, mask, ACC, HALF, BLOCK,
    )  # fmt: skip


def _heads(x: Tensor) -> Tensor:
    """`x` (B, S, H, D) with strides the kernel can take; a copy only where it cannot."""
    return x if x.stride(3) == 1 else x.contiguous()


def _grid(q: Tensor, k: Tensor, cfg: LaunchConfig) -> tuple[int, int]:
    """Programs by (sequence and tile of tokens, group of heads): only the first dimension of a grid
    may be longer than 65,535."""
    batch, tokens, heads, _ = q.shape
    return batch * triton.cdiv(tokens, cfg.rows), triton.cdiv(heads + k.shape[2], HEADS)


def _strides(x: Tensor) -> tuple[int, ...]:
    """Strides of batch, token and head; 0 for a dimension that is 1 long, whose stride may be
    anything and would otherwise cost another binary."""
    return tuple(s if size > 1 else 0 for s, size in zip(x.stride()[:3], x.shape[:3], strict=True))


def forward(
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    eps: float,
    inverse: bool,
) -> tuple[Tensor, Tensor]:
    """Launch the turn (or, with inverse, the turn back without any norm)."""
    q, k, cos, sin = _heads(q), _heads(k), cos.contiguous(), sin.contiguous()
    q_out = torch.empty_like(q, memory_format=torch.contiguous_format)
    k_out = torch.empty_like(k, memory_format=torch.contiguous_format)
    batch, tokens, q_heads, dim = q.shape
    if batch and tokens and dim:
        cfg = launch_config("rope", q, dim)
        norm = q_weight is not None
        rope_kernel[_grid(q, k, cfg)](
            q, k, cos, sin, q if q_weight is None else q_weight.contiguous(),
            k if k_weight is None else k_weight.contiguous(), q_out, k_out, tokens,
            q_heads, k.shape[2], *_strides(q), *_strides(k),
            eps, inverse, norm, accumulator_type(q), dim // 2, HEADS, cfg.rows,
            cfg.block, **cfg.options,
        )  # fmt: skip
    return q_out, k_out


def backward(
    dq_out: Tensor,
    dk_out: Tensor,
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Launch the backward of rotation and QK-norm; returns dq, dk and the gradients of q_weight
    and k_weight (2, D) in the wide type."""
    dq_out, dk_out, q, k = _heads(dq_out), _heads(dk_out), _heads(q), _heads(k)
    dq = torch.empty_like(q, memory_format=torch.contiguous_format)
    dk = torch.empty_like(k, memory_format=torch.contiguous_format)
    batch, tokens, q_heads, dim = q.shape
    if not (batch and tokens and dim):
        return dq, dk, q.new_zeros(2, dim, dtype=statistics_dtype(q))
    cfg = launch_config("rope_norm_bwd", q, dim)
    grid = _grid(q, k, cfg)
    partial = q.new_empty(grid[0] * grid[1], 2 * dim, dtype=statistics_dtype(q))
    rope_norm_bwd_kernel[grid](
        dq_out, dk_out, q, k, cos.contiguous(), sin.contiguous(), q_weight.contiguous(),
        k_weight.contiguous(), dq, dk, partial, tokens, q_heads, k.shape[2],
        *_strides(dq_out), *_strides(dk_out), *_strides(q), *_strides(k), eps,
        accumulator_type(q), dim // 2, HEADS, cfg.rows, cfg.block, **cfg.options,
    )  # fmt: skip
    return dq, dk, column_sum(partial, partial.dtype).view(2, dim)


@torch.library.custom_op("lockgate::rope", mutates_args=())
def rope_op(
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    eps: float,
    inverse: bool,
) -> tuple[Tensor, Tensor]:
    """The torch op of `rope`; inverse turns the other way, which is the backward without norm."""
    return forward(q, k, cos, sin, q_weight, k_weight, eps, inverse)


@rope_op.register_fake
def _(q, k, cos, sin, q_weight, k_weight, eps, inverse):
    return (
        torch.empty_like(q, memory_format=torch.contiguous_format),
        torch.empty_like(k, memory_format=torch.contiguous_format),
    )


@torch.library.custom_op("lockgate::rope_norm_backward", mutates_args=())
def rope_norm_backward_op(
    dq_out: Tensor,
    dk_out: Tensor,
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The backward of `rope` with QK-norm; returns (dq, dk, gradients of both weights (2, D))."""
    return backward(dq_out, dk_out, q, k, cos, sin, q_weight, k_weight, eps)


@rope_norm_backward_op.register_fake
def _(dq_out, dk_out, q, k, cos, sin, q_weight, k_weight, eps):
    dq = torch.empty_like(q, memory_format=torch.contiguous_format)
    dk = torch.empty_like(k, memory_format=torch.contiguous_format)
    return dq, dk, q.new_empty(2, q.shape[3], dtype=statistics_dtype(q))


differentiable_once(rope_norm_backward_op, "rope")


def _setup_context(ctx, inputs, output):
    q, k, cos, sin, q_weight, k_weight, ctx.eps, ctx.inverse = inputs
    ctx.norm = q_weight is not None
    kept = (q, k, q_weight, k_weight) if ctx.norm else ()
    ctx.save_for_backward(cos, sin, *kept)


def _backward(ctx, dq_out, dk_out):
    cos, sin, *kept = ctx.saved_tensors
    if not ctx.norm:
        dq, dk = rope_op(dq_out, dk_out, cos, sin, None, None, ctx.eps, not ctx.inverse)
        return dq, dk, None, None, None, None, None, None
    q, k, q_weight, k_weight = kept
    dq, dk, dweights = rope_norm_backward_op(
        dq_out, dk_out, q, k, cos, sin, q_weight, k_weight, ctx.eps
    )
    dw_q, dw_k = dweights[0].to(q_weight.dtype), dweights[1].to(k_weight.dtype)
    return dq, dk, None, None, dw_q, dw_k, None, None


rope_op.register_autograd(_backward, setup_context=_setup_context)
