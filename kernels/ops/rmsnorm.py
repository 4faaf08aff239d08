"""RMSNorm over the last dimension.

    y = x · rstd · w                       rstd = (mean(x²) + eps)^-½
    dx = (dy·w − x̂ · mean(dy·w·x̂)) · rstd   dw = Σ_rows dy · x̂          x̂ = x · rstd

Zhang and Sennrich, Root Mean Square Layer Normalization, arXiv:1910.07467. Without a weight w is 1;
with an offset it is offset + weight, as in Gemma, whose weights are stored less 1.

Bytes, M rows of N elements of e bytes: forward 2MNe + 4M, backward 3MNe + 4M + 8PN + Ne for P
partial sums of dw (none without a weight), the weight vector apart. Where a row and its sums of dw
do not fit the registers that can share a program (N = 32768 on sm_80: 128 KiB each of 256), x and
dy are read a second time right after the first, from cache.
"""

import math
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.backend import KernelError, wants_triton
from kernels.launch.arguments import (
    check_number,
    check_size,
    check_tensors,
    check_type,
    expect,
)
from kernels.launch.config import largest_size, launch_config
from kernels.launch.derivatives import differentiable_once, refuse_forward_mode
from kernels.launch.dtypes import accumulator_type, statistics_dtype
from kernels.launch.layout import as_rows, row_stride
from kernels.launch.reduction import column_sum
from kernels.launch.registers import opaque_zero, widened_by_shift

__all__ = ["rms_norm"]

LARGEST = largest_size("rms_norm_fwd")


def rms_norm(
    x: Tensor,
    weight: Tensor | None = None,
    eps: float = 1e-6,
    *,
    offset: float = 0.0,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Normalise the last dimension of `x` by its root mean square and scale it by `weight`.

    x: (..., N), weight: (N,) or None for 1; `offset` is added to it. Returns (..., N) in `dtype`,
    or x's. Statistics are fp32 (fp64 for fp64). Raises KernelError for another shape of weight, an
    offset without one, or an N beyond the launch table.
    """
    check_norm("rms_norm", x, weight, eps, offset, dtype)
    check_size("rms_norm", "the last dimension", x.shape[-1], LARGEST)
    refuse_forward_mode("rms_norm", x, weight)
    dtype = dtype or x.dtype
    if wants_triton(x):
        return rms_norm_op(x, weight, eps, offset, dtype)[0]
    return rms_norm_ref(x, weight, eps, offset=offset, dtype=dtype)


def check_norm(
    op: str, x: Tensor, weight: Tensor | None, eps: float, offset: float, dtype: torch.dtype | None
) -> None:
    """Raise KernelError for arguments of a norm that do not fit, or a type no kernel writes."""
    check_tensors(op, x=x, weight=weight)
    check_number(op, "eps", eps)
    check_number(op, "offset", offset)
    check_type(op, dtype)
    if weight is not None:
        expect(op, "weight", weight, x.shape[-1:])
    elif offset:
        raise KernelError(f"{op}: offset={offset!r} is added to a weight, and there is none")


def rms_norm_ref(
    x: Tensor,
    weight: Tensor | None = None,
    eps: float = 1e-6,
    *,
    offset: float = 0.0,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The specification in plain torch: one rounding, at the end."""
    wide_x = x.to(torch.promote_types(x.dtype, torch.float32))
    y = wide_x * torch.rsqrt(wide_x.square().mean(-1, keepdim=True) + eps)
    if weight is not None:
        y = y * (weight.to(y.dtype) + offset)
    return y.to(dtype or x.dtype)


@triton.jit
def scaling(weight, OFFSET: tl.constexpr, ACC: tl.constexpr):
    """Factor of a norm from `weight` as it is stored."""
    weight = weight.to(ACC)
    if OFFSET != 0:
        weight += OFFSET
    return weight


@triton.jit(do_not_specialize=["m"])
def rms_norm_fwd_kernel(
    X,  # (m, n)
    WEIGHT,  # (n,)
    Y,  # (m, n), contiguous
    RSTD,  # (m,)
    m,
    n,
    stride_x,
    eps,
    HAS_WEIGHT: tl.constexpr,
    OFFSET: tl.constexpr,
    ACC: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    cols = tl.arange(0, BLOCK)
    mask = (row < m)[:, None] & (cols < n)[None, :]
    x = tl.load(X + row[:, None] * stride_x + cols[None, :], mask, other=0.0).to(ACC)
    rstd = tl.rsqrt(tl.sum(x * x, 1) / n + eps)
    y = x * rstd[:, None]
    if HAS_WEIGHT:
        y *= scaling(tl.load(WEIGHT + cols, cols < n, other=0.0), OFFSET, ACC)[None, :]
    tl.store(RSTD + row, rstd, row < m)
    tl.store(Y + row[:, None] * n + cols[None, :], y.to(Y.dtype.element_ty), mask)


class RowStrides(NamedTuple):
    """Elements from one row to the next of the backward's inputs."""

    dy: int
    x: int
    dstream: int


@triton.jit(do_not_specialize=["m", "span"])
def rms_norm_bwd_kernel(
    DY,  # (m, n)
    X,  # (m, n)
    WEIGHT,  # (n,)
    RSTD,  # (m,)
    DSTREAM,  # (m, n): gradient of x from elsewhere, or nothing
    DX,  # (m, n), contiguous
    DWEIGHT,  # (programs, n): partial sums
    m,
    n,
    strides,  # RowStrides
    span,  # rows of one program
    HAS_DSTREAM: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    OFFSET: tl.constexpr,
    ACC: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """x and dy are read once and stay in registers as they are stored; the weight, which all rows
    share, is read again from cache."""
    pid = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    inside = cols < n
    zero = opaque_zero(n)
    dweight = tl.zeros((BLOCK,), ACC)
    end = tl.minimum((pid + 1) * span, m)
    for first in range(pid * span, end, ROWS):
        row = (first + tl.arange(0, ROWS)).to(tl.int64)
        mask = (row < end)[:, None] & inside[None, :]
        x = tl.load(X + row[:, None] * strides.x + cols[None, :], mask, other=0.0)
        dy = tl.load(DY + row[:, None] * strides.dy + cols[None, :], mask, other=0.0)
        shared = WEIGHT + row[:, None] * 0 + cols[None, :]  # as wide a load as those of x
        rstd = tl.load(RSTD + row, row < end, other=0.0)[:, None]
        terms = x.to(ACC) * dy.to(ACC)
        if HAS_WEIGHT:
            terms *= scaling(tl.load(shared, mask, other=0.0), OFFSET, ACC)
        mean = tl.sum(terms, 1)[:, None] / n * rstd
        x_hat = widened_by_shift(x, zero, ACC) * rstd
        dy = widened_by_shift(dy, zero, ACC)
        dx = dy
        if HAS_WEIGHT:
            weight = tl.load(shared, mask, other=0.0, eviction_policy="evict_last")
            dx = dy * scaling(weight, OFFSET, ACC)
        dx = (dx - x_hat * mean) * rstd
        if HAS_DSTREAM:
            dx += tl.load(DSTREAM + row[:, None] * strides.dstream + cols[None, :], mask, other=0.0)
        tl.store(DX + row[:, None] * n + cols[None, :], dx.to(DX.dtype.element_ty), mask)
        if HAS_WEIGHT:
            dweight += tl.sum(dy * x_hat, 0)
    if HAS_WEIGHT:
        tl.store(DWEIGHT + pid * n + cols, dweight, inside)


@triton.jit(do_not_specialize=["m", "span"])
def rms_norm_wide_bwd_kernel(
    DY,  # (m, n)
    X,  # (m, n)
    WEIGHT,  # (n,)
    RSTD,  # (m,)
    DSTREAM,  # (m, n) or nothing
    DX,  # (m, n), contiguous
    DWEIGHT,  # (programs, n)
    m,
    n,
    strides,  # RowStrides
    span,
    HAS_DSTREAM: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    OFFSET: tl.constexpr,
    ACC: tl.constexpr,
    TILES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The same for rows that fill all registers with their sums of dw: each row is read twice, the
    second time right after the first and from cache."""
    pid = tl.program_id(0).to(tl.int64)
    tile = tl.arange(0, BLOCK)
    dweight = (tl.zeros((BLOCK,), ACC),) * TILES
    for number in range(pid * span, tl.minimum((pid + 1) * span, m)):
        row = number + tl.full((), 0, tl.int64)  # the interpreter counts in Python's integers
        x_row, dy_row = X + row * strides.x, DY + row * strides.dy
        total = tl.zeros((BLOCK,), ACC)
        for first in range(0, n, BLOCK):
            cols = first + tile
            inside = cols < n
            x = tl.load(x_row + cols, inside, other=0.0, eviction_policy="evict_last")
            dy = tl.load(dy_row + cols, inside, other=0.0, eviction_policy="evict_last")
            terms = x.to(ACC) * dy.to(ACC)
            if HAS_WEIGHT:
                terms *= scaling(tl.load(WEIGHT + cols, inside, other=0.0), OFFSET, ACC)
            total += terms
        rstd = tl.load(RSTD + row)
        mean = tl.sum(total, 0) / n * rstd
        sums = ()
        for part in tl.static_range(TILES):
            cols = part * BLOCK + tile
            inside = cols < n
            x = tl.load(x_row + cols, inside, other=0.0, eviction_policy="evict_first")
            dy = tl.load(dy_row + cols, inside, other=0.0, eviction_policy="evict_first").to(ACC)
            x_hat = x.to(ACC) * rstd
            dx = dy
            if HAS_WEIGHT:
                dx = dy * scaling(tl.load(WEIGHT + cols, inside, other=0.0), OFFSET, ACC)
            dx = (dx - x_hat * mean) * rstd
            if HAS_DSTREAM:
                dx += tl.load(DSTREAM + row * strides.dstream + cols, inside, other=0.0)
            tl.store(DX + row * n + cols, dx.to(DX.dtype.element_ty), inside)
            if HAS_WEIGHT:
                sums = sums + (dweight[part] + dy * x_hat,)  # type: ignore[assignment]  # noqa: RUF005
        if HAS_WEIGHT:
            dweight = sums
    if HAS_WEIGHT:
        for part in tl.static_range(TILES):
            cols = part * BLOCK + tile
            tl.store(DWEIGHT + pid * n + cols, dweight[part], cols < n)


def forward(
    x: Tensor, weight: Tensor | None, eps: float, offset: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Launch the forward; returns y (..., N) in `dtype` and rstd (M,)."""
    rows = as_rows(x)
    m, n = rows.shape
    y = torch.empty_like(x, dtype=dtype, memory_format=torch.contiguous_format)
    rstd = x.new_empty(m, dtype=statistics_dtype(x))
    if m and n:
        cfg = launch_config("rms_norm_fwd", x, n)
        rms_norm_fwd_kernel[(triton.cdiv(m, cfg.rows),)](
            rows, vector(weight, rows), y, rstd, m, n, row_stride(rows), eps,
            **weighting(weight, offset), ACC=accumulator_type(x), ROWS=cfg.rows, BLOCK=cfg.block,
            **cfg.options,
        )  # fmt: skip
    return y, rstd


def weighting(weight: Tensor | None, offset: float) -> dict[str, Any]:
    """Arguments of every norm's kernels by their names: whether there is a weight, its offset."""
    return {"HAS_WEIGHT": weight is not None, "OFFSET": offset}


def vector(weight: Tensor | None, instead: Tensor) -> Tensor:
    """The weight for a kernel, or a tensor that it is given and does not read."""
    return instead if weight is None else weight.contiguous()


def backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    rstd: Tensor,
    dstream: Tensor | None,
    offset: float,
) -> tuple[Tensor, Tensor]:
    """Launch the backward; returns dx (..., N) and dw (N,), dstream (..., N) added to dx.

    dw has no elements without a weight.
    """
    rows, dy_rows = as_rows(x), as_rows(dy)
    ds_rows = as_rows(dstream) if dstream is not None else dy_rows
    m, n = rows.shape
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    if not (m and n):
        return dx, x.new_empty(0) if weight is None else torch.zeros_like(weight)
    kernel = "rms_norm_bwd" if dstream is None else "add_rms_norm_bwd"
    cfg = launch_config(kernel, x, n)
    span = triton.cdiv(m, min(cfg.programs, triton.cdiv(m, cfg.rows)))
    programs = triton.cdiv(m, span)
    sums = 0 if weight is None else programs
    partial = x.new_empty(sums, n, dtype=statistics_dtype(x))
    tensors = dy_rows, rows, vector(weight, rows), rstd, ds_rows, dx, partial
    strides = RowStrides(row_stride(dy_rows), row_stride(rows), row_stride(ds_rows))
    given = {
        "m": m, "n": n, "strides": strides, "span": span, "HAS_DSTREAM": dstream is not None,
        **weighting(weight, offset), "ACC": accumulator_type(x), "BLOCK": cfg.block, **cfg.options,
    }  # fmt: skip
    if cfg.reads == 1:
        rms_norm_bwd_kernel[(programs,)](*tensors, ROWS=cfg.rows, **given)
    else:
        tiles = triton.cdiv(n, cfg.block)
        rms_norm_wide_bwd_kernel[(programs,)](*tensors, TILES=tiles, **given)
    return dx, x.new_empty(0) if weight is None else column_sum(partial, weight.dtype)


@torch.library.custom_op("lockgate::rms_norm", mutates_args=())
def rms_norm_op(
    x: Tensor, weight: Tensor | None, eps: float, offset: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The torch op of `rms_norm`; returns (y, rstd)."""
    return forward(x, weight, eps, offset, dtype)


@rms_norm_op.register_fake
def _(x, weight, eps, offset, dtype):
    rows = math.prod(x.shape[:-1])
    y = torch.empty_like(x, dtype=dtype, memory_format=torch.contiguous_format)
    return y, x.new_empty(rows, dtype=statistics_dtype(x))


@torch.library.custom_op("lockgate::rms_norm_backward", mutates_args=())
def rms_norm_backward_op(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    rstd: Tensor,
    dstream: Tensor | None,
    offset: float,
) -> tuple[Tensor, Tensor]:
    """The backward of `rms_norm` and, with dstream, of `add_rms_norm`; returns (dx, dw)."""
    return backward(dy, x, weight, rstd, dstream, offset)


@rms_norm_backward_op.register_fake
def _(dy, x, weight, rstd, dstream, offset):
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    if weight is None:
        return dx, x.new_empty(0)
    return dx, torch.empty_like(weight, memory_format=torch.contiguous_format)


# rope too: its QK-norm is this one where only a part of a head turns
differentiable_once(rms_norm_backward_op, "rms_norm, add_rms_norm, rope")


def _setup_context(ctx, inputs, output):
    x, weight, _, offset, _ = inputs
    ctx.save_for_backward(x, weight, output[1])
    ctx.offset = offset
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx, dy, _):
    if dy is None:
        return None, None, None, None, None
    x, weight, rstd = ctx.saved_tensors
    dx, dweight = rms_norm_backward_op(dy, x, weight, rstd, None, ctx.offset)
    return dx, None if weight is None else dweight, None, None, None


rms_norm_op.register_autograd(_backward, setup_context=_setup_context)
