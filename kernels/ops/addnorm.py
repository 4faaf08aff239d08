"""Residual add + RMSNorm: the sum goes on as the residual stream, its norm into the layer.

    r' = r + x        y = rms_norm(r')        dx = dr = dr' + (backward of rms_norm)(dy)

RMSNorm: arXiv:1910.07467.

A wide stream beside narrow branches, fp32 beside bf16, is read and written as it is: `dtype` is
then that of the branches' y.

Bytes, M rows of N elements of e bytes: forward 4MNe + 4M, backward 4MNe + 4M + 8PN + Ne. The
gradients of x and of the residual are one tensor; where their types differ, that of x is a second
one, made from it.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.backend import wants_triton
from kernels.launch.arguments import check_size, check_tensors, expect
from kernels.launch.config import largest_size, launch_config
from kernels.launch.derivatives import refuse_forward_mode
from kernels.launch.dtypes import accumulator_type, statistics_dtype
from kernels.launch.layout import as_rows, row_stride
from kernels.ops.rmsnorm import (
    check_norm,
    rms_norm_backward_op,
    rms_norm_ref,
    scaling,
    vector,
    weighting,
)

__all__ = ["add_rms_norm"]

LARGEST = largest_size("add_rms_norm_fwd")


def add_rms_norm(
    x: Tensor,
    residual: Tensor,
    weight: Tensor | None = None,
    eps: float = 1e-6,
    *,
    offset: float = 0.0,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """Add `x` to the residual stream and normalise the sum; returns (y, new residual).

    x, residual: (..., N), weight and offset as in `kernels.rms_norm`. Both results have x's shape;
    the new residual has the dtype of the sum, so that of an fp32 stream and a bf16 branch is fp32,
    and y has `dtype`, or the same. Raises KernelError for other shapes, an offset without a weight,
    or an N beyond the launch table.
    """
    check_norm("add_rms_norm", x, weight, eps, offset, dtype)
    check_tensors("add_rms_norm", x=x, residual=residual)
    expect("add_rms_norm", "residual", residual, x.shape)
    check_size("add_rms_norm", "the last dimension", x.shape[-1], LARGEST)
    refuse_forward_mode("add_rms_norm", x, residual, weight)
    dtype = dtype or torch.promote_types(x.dtype, residual.dtype)
    if wants_triton(x):
        return add_rms_norm_op(x, residual, weight, eps, offset, dtype)[:2]
    return add_rms_norm_ref(x, residual, weight, eps, offset=offset, dtype=dtype)


def add_rms_norm_ref(
    x: Tensor,
    residual: Tensor,
    weight: Tensor | None = None,
    eps: float = 1e-6,
    *,
    offset: float = 0.0,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """The specification in plain torch; the norm sees the sum as it is stored."""
    stream = residual + x
    return rms_norm_ref(stream, weight, eps, offset=offset, dtype=dtype), stream


@triton.jit(do_not_specialize=["m"])
def add_rms_norm_fwd_kernel(
    X,  # (m, n)
    RESIDUAL,  # (m, n)
    WEIGHT,  # (n,)
    Y,  # (m, n), contiguous
    STREAM,  # (m, n), contiguous
    RSTD,  # (m,)
    m,
    n,
    stride_x,
    stride_r,
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
    x += tl.load(RESIDUAL + row[:, None] * stride_r + cols[None, :], mask, other=0.0).to(ACC)
    stream = x.to(STREAM.dtype.element_ty)
    tl.store(STREAM + row[:, None] * n + cols[None, :], stream, mask)
    x = stream.to(ACC)  # the backward will read the rounded sum, so the norm sees it too
    rstd = tl.rsqrt(tl.sum(x * x, 1) / n + eps)
    y = x * rstd[:, None]
    if HAS_WEIGHT:
        y *= scaling(tl.load(WEIGHT + cols, cols < n, other=0.0), OFFSET, ACC)[None, :]
    tl.store(RSTD + row, rstd, row < m)
    tl.store(Y + row[:, None] * n + cols[None, :], y.to(Y.dtype.element_ty), mask)


def forward(
    x: Tensor,
    residual: Tensor,
    weight: Tensor | None,
    eps: float,
    offset: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """Launch the forward; returns y (..., N), the new residual (..., N) and rstd (M,)."""
    rows, r_rows = as_rows(x), as_rows(residual)
    m, n = rows.shape
    y, stream, rstd = results(x, residual, dtype)
    if m and n:
        cfg = launch_config("add_rms_norm_fwd", stream, n)
        add_rms_norm_fwd_kernel[(triton.cdiv(m, cfg.rows),)](
            rows, r_rows, vector(weight, rows), y, stream, rstd, m, n, row_stride(rows),
            row_stride(r_rows), eps, **weighting(weight, offset), ACC=accumulator_type(stream),
            ROWS=cfg.rows, BLOCK=cfg.block, **cfg.options,
        )  # fmt: skip
    return y, stream, rstd


def results(x: Tensor, residual: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Empty y (..., N) in `dtype`, new residual (..., N) in the type of the sum, and rstd (M,)."""
    wide = torch.promote_types(x.dtype, residual.dtype)
    stream = torch.empty_like(x, dtype=wide, memory_format=torch.contiguous_format)
    rows = math.prod(x.shape[:-1])
    return (
        torch.empty_like(stream, dtype=dtype),
        stream,
        x.new_empty(rows, dtype=statistics_dtype(stream)),
    )


@torch.library.custom_op("lockgate::add_rms_norm", mutates_args=())
def add_rms_norm_op(
    x: Tensor,
    residual: Tensor,
    weight: Tensor | None,
    eps: float,
    offset: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """The torch op of `add_rms_norm`; returns (y, new residual, rstd)."""
    return forward(x, residual, weight, eps, offset, dtype)


@add_rms_norm_op.register_fake
def _(x, residual, weight, eps, offset, dtype):
    return results(x, residual, dtype)


def _setup_context(ctx, inputs, output):
    x, residual, weight, _, offset, _ = inputs
    _, stream, rstd = output
    ctx.save_for_backward(stream, weight, rstd)
    ctx.offset, ctx.types = offset, (x.dtype, residual.dtype)
    ctx.mark_non_differentiable(rstd)
    ctx.set_materialize_grads(False)


def _backward(ctx, dy, dstream, _):
    stream, weight, rstd = ctx.saved_tensors
    dweight = None
    if dy is None:  # only the residual stream went on
        d = dstream
    else:
        d, dweight = rms_norm_backward_op(dy, stream, weight, rstd, dstream, ctx.offset)
    if d is None:
        return None, None, None, None, None, None
    dx, dresidual = (d.to(kind) for kind in ctx.types)
    return dx, dresidual, None if weight is None else dweight, None, None, None


add_rms_norm_op.register_autograd(_backward, setup_context=_setup_context)
