"""Kernels and torch ops of RoPE, with and without QK-norm: formulas in kernels/ops/rotary.py."""

from typing import Any, NamedTuple

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


class HeadStrides(NamedTuple):
    """Elements from one sequence, token and head of (B, S, H, D) to the next."""

    batch: int
    token: int
    head: int


@triton.jit
def _place(tokens, heads, HEADS: tl.constexpr, ROWS: tl.constexpr):
    """(sequence, its tokens (ROWS, 1)), first and last head of a program of `_grid`."""
    tiles = tl.cdiv(tokens, ROWS)
    batch = (tl.program_id(0) // tiles).to(tl.int64)
    token = (tl.program_id(0) % tiles).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    first = tl.program_id(1) * HEADS
    return (batch, token[:, None]), first, tl.minimum(first + HEADS, heads)


@triton.jit
def _angles(COS, SIN, token, tokens, ACC: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr):
    """(cos, sin, elements that there are) of tokens (ROWS, 1), each (ROWS, BLOCK)."""
    cols = tl.arange(0, BLOCK)
    mask = (token < tokens) & (cols < HALF)[None, :]
    cos = tl.load(COS + token * HALF + cols[None, :], mask, other=0.0).to(ACC)
    sin = tl.load(SIN + token * HALF + cols[None, :], mask, other=0.0).to(ACC)
    return cos, sin, mask


@triton.jit
def _token(X, place, strides):
    """Pointers to the first head of each token of a place."""
    return X + place[0] * strides.batch + place[1] * strides.token


@triton.jit
def _own_token(Y, place, tokens, heads, HALF: tl.constexpr):
    """The same in a contiguous tensor."""
    return Y + (place[0] * tokens + place[1]) * heads * (2 * HALF)


@triton.jit
def _halves(WEIGHT, ACC: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr):
    """A weight's two halves, each (1, BLOCK)."""
    cols = tl.arange(0, BLOCK)
    first = tl.load(WEIGHT + cols, cols < HALF, other=0.0).to(ACC)[None, :]
    second = tl.load(WEIGHT + HALF + cols, cols < HALF, other=0.0).to(ACC)[None, :]
    return first, second


@triton.jit
def _turn_heads(
    X,  # (tokens, 1): pointers to the tokens' first heads
    Y,
    WEIGHT,
    first,
    last,
    stride,  # from one head of X to the next
    angles,  # of _angles
    eps,
    NORM: tl.constexpr,
    ACC: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK: tl.constexpr,
):
    cols = tl.arange(0, BLOCK)
    cos, sin, mask = angles
    if NORM:
        w1, w2 = _halves(WEIGHT, ACC, HALF, BLOCK)
    for number in range(first, last):
        head = number + tl.full((), 0, tl.int64)  # heads may lie far apart
        x = X + head * stride + cols[None, :]
        y = Y + head * (2 * HALF) + cols[None, :]
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
    q_strides,  # HeadStrides
    k_strides,
    eps,
    INVERSE: tl.constexpr,
    NORM: tl.constexpr,
    ACC: tl.constexpr,
    HALF: tl.constexpr,
    HEADS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    place, first, last = _place(tokens, q_heads + k_heads, HEADS, ROWS)
    cos, sin, mask = _angles(COS, SIN, place[1], tokens, ACC, HALF, BLOCK)
    if INVERSE:
        sin = -sin
    angles = cos, sin, mask
    q, k = _token(Q, place, q_strides), _token(K, place, k_strides)
    q_out = _own_token(Q_OUT, place, tokens, q_heads, HALF)
    k_out = _own_token(K_OUT, place, tokens, k_heads, HALF)
    _turn_heads(
        q, q_out, Q_WEIGHT, tl.minimum(first, q_heads), tl.minimum(last, q_heads), q_strides.head,
        angles, eps, NORM, ACC, HALF, BLOCK,
    )  # fmt: skip
    _turn_heads(
        k, k_out, K_WEIGHT, tl.maximum(first - q_heads, 0), tl.maximum(last - q_heads, 0),
        k_strides.head, angles, eps, NORM, ACC, HALF, BLOCK,
    )  # fmt: skip


@triton.jit
def _turn_heads_back(
    DY,  # (tokens, 1): pointers to the tokens' first heads
    X,
    WEIGHT,
    DX,
    DWEIGHT,
    first,
    last,
    stride_dy,  # from one head to the next
    stride_x,
    angles,  # of _angles
    eps,
    ACC: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK: tl.constexpr,
):
    cols = tl.arange(0, BLOCK)
    cos, sin, mask = angles
    w1, w2 = _halves(WEIGHT, ACC, HALF, BLOCK)
    dw1 = tl.zeros((BLOCK,), ACC)
    dw2 = tl.zeros((BLOCK,), ACC)
    for number in range(first, last):
        head = number + tl.full((), 0, tl.int64)
        x = X + head * stride_x + cols[None, :]
        dy = DY + head * stride_dy + cols[None, :]
        dx = DX + head * (2 * HALF) + cols[None, :]
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
    dq_strides,  # HeadStrides
    dk_strides,
    q_strides,
    k_strides,
    eps,
    ACC: tl.constexpr,
    HALF: tl.constexpr,
    HEADS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    place, first, last = _place(tokens, q_heads + k_heads, HEADS, ROWS)
    angles = _angles(COS, SIN, place[1], tokens, ACC, HALF, BLOCK)
    program = tl.program_id(1).to(tl.int64) * tl.num_programs(0) + tl.program_id(0)
    DWEIGHT += program * (4 * HALF)
    dq, dk = (
        _own_token(DQ, place, tokens, q_heads, HALF),
        _own_token(DK, place, tokens, k_heads, HALF),
    )
    _turn_heads_back(
        _token(DQ_OUT, place, dq_strides), _token(Q, place, q_strides), Q_WEIGHT, dq, DWEIGHT,
        tl.minimum(first, q_heads), tl.minimum(last, q_heads), dq_strides.head, q_strides.head,
        angles, eps, ACC, HALF, BLOCK,
    )  # fmt: skip
    _turn_heads_back(
        _token(DK_OUT, place, dk_strides), _token(K, place, k_strides), K_WEIGHT, dk,
        DWEIGHT + 2 * HALF, tl.maximum(first - q_heads, 0), tl.maximum(last - q_heads, 0),
        dk_strides.head, k_strides.head, angles, eps, ACC, HALF, BLOCK,
    )  # fmt: skip


def _heads(x: Tensor) -> Tensor:
    """`x` (B, S, H, D) with strides the kernel can take; a copy only where it cannot."""
    return x if x.stride(3) == 1 else x.contiguous()


def _grid(q: Tensor, k: Tensor, cfg: LaunchConfig) -> tuple[int, int]:
    """Programs by (sequence and tile of tokens, group of heads): only the first dimension of a grid
    may be longer than 65,535."""
    batch, tokens, heads, _ = q.shape
    return batch * triton.cdiv(tokens, cfg.rows), triton.cdiv(heads + k.shape[2], HEADS)


def _strides(x: Tensor) -> HeadStrides:
    """Strides of (B, S, H, D); 0 for a dimension that is 1 long, whose stride may be anything and
    would otherwise cost another binary."""
    return HeadStrides(
        *(s if size > 1 else 0 for s, size in zip(x.stride()[:3], x.shape[:3], strict=True))
    )


def _sizes(q: Tensor, k: Tensor, cfg: LaunchConfig) -> dict[str, Any]:
    """Arguments that both kernels have by their names."""
    _, tokens, q_heads, dim = q.shape
    return {
        "tokens": tokens, "q_heads": q_heads, "k_heads": k.shape[2], "q_strides": _strides(q),
        "k_strides": _strides(k), "ACC": accumulator_type(q), "HALF": dim // 2, "HEADS": HEADS,
        "ROWS": cfg.rows, "BLOCK": cfg.block, **cfg.options,
    }  # fmt: skip


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
    batch, tokens, _, dim = q.shape
    if batch and tokens and dim:
        cfg = launch_config("rope", q, dim)
        rope_kernel[_grid(q, k, cfg)](
            q, k, cos, sin, q if q_weight is None else q_weight.contiguous(),
            k if k_weight is None else k_weight.contiguous(), q_out, k_out, eps=eps,
            INVERSE=inverse, NORM=q_weight is not None, **_sizes(q, k, cfg),
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
    batch, tokens, _, dim = q.shape
    if not (batch and tokens and dim):
        return dq, dk, q.new_zeros(2, dim, dtype=statistics_dtype(q))
    cfg = launch_config("rope_norm_bwd", q, dim)
    grid = _grid(q, k, cfg)
    partial = q.new_empty(grid[0] * grid[1], 2 * dim, dtype=statistics_dtype(q))
    rope_norm_bwd_kernel[grid](
        dq_out, dk_out, q, k, cos.contiguous(), sin.contiguous(), q_weight.contiguous(),
        k_weight.contiguous(), dq, dk, partial, eps=eps, dq_strides=_strides(dq_out),
        dk_strides=_strides(dk_out), **_sizes(q, k, cfg),
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
