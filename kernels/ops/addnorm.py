"""Residual add + RMSNorm: the sum goes on as the residual stream, its norm into the layer.

    r' = r + x        y = rms_norm(r')        dx = dr = dr' + (backward of rms_norm)(dy)

RMSNorm: arXiv:1910.07467.

Bytes, M rows of N elements of e bytes: forward 4MNe + 4M, backward 4MNe + 4M + 8PN + Ne. The
gradients of x and of the residual are one tensor.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.backend import wants_triton
from kernels.launch.arguments import (
    check_number,
    check_size,
    check_tensors,
    expect,
    promoted,
)
from kernels.launch.config import largest_size, launch_config
from kernels.launch.derivatives import refuse_forward_mode
from kernels.launch.dtypes import accumulator_type, statistics_dtype
from kernels.launch.layout import as_rows, row_stride
from kernels.ops.rmsnorm import rms_norm_backward_op, rms_norm_ref

__all__ = ["add_rms_norm"]

LARGEST = largest_size("add_rms_norm_fwd")


def add_rms_norm(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """Add `x` to the residual stream and normalise the sum; returns (y, new residual).

    x, residual: (..., N), weight: (N,). Both results have x's shape and the dtype of the sum, so
    that of an fp32 stream and a bf16 branch is fp32. Raises KernelError for other shapes, or an N
    beyond the launch table.
    """
    check_tensors("add_rms_norm", x=x, residual=residual, weight=weight)
    expect("add_rms_norm", "residual", residual, x.shape)
    expect("add_rms_norm", "weight", weight, x.shape[-1:])
    check_number("add_rms_norm", "eps", eps)
    check_size("add_rms_norm", "the last dimension", x.shape[-1], LARGEST)
    refuse_forward_mode("add_rms_norm", x, residual, weight)
    x, residual = promoted(x, residual)
    if wants_triton(x):
        return add_rms_norm_op(x, residual, weight, eps)[:2]
    return add_rms_norm_ref(x, residual, weight, eps)


def add_rms_norm_ref(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """The specification in plain torch; the norm sees the sum as it is stored."""
    stream = residual + x
    return rms_norm_ref(stream, weight, eps), stream


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
    weight = tl.load(WEIGHT + cols, cols < n, other=0.0).to(ACC)
    y = x * rstd[:, None] * weight[None, :]
    tl.store(RSTD + row, rstd, row < m)
    tl.store(Y + row[:, None] * n + cols[None, :], y.to(Y.dtype.element_ty), mask)


def forward(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Launch the forward; returns y (..., N), the new residual (..., N) and rstd (M,)."""
    rows, r_rows = as_rows(x), as_rows(residual)
    m, n = rows.shape
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    stream = torch.empty_like(y)
    rstd = x.new_empty(m, dtype=statistics_dtype(x))
    if m and n:
        cfg = launch_config("add_rms_norm_fwd", x, n)
        add_rms_norm_fwd_kernel[(triton.cdiv(m, cfg.rows),)](
            rows, r_rows, weight.contiguous(), y, stream, rstd, m, n, row_stride(rows),
            row_stride(r_rows), eps, accumulator_type(x), cfg.rows, cfg.block, **cfg.options,
        )  # fmt: skip
    return y, stream, rstd


@torch.library.custom_op("lockgate::add_rms_norm", mutates_args=())
def add_rms_norm_op(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The torch op of `add_rms_norm`; returns (y, new residual, rstd)."""
    return forward(x, residual, weight, eps)


@add_rms_norm_op.register_fake
def _(x, residual, weight, eps):
    rows = math.prod(x.shape[:-1])
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    return y, torch.empty_like(y), x.new_empty(rows, dtype=statistics_dtype(x))


def _setup_context(ctx, inputs, output):
    _, stream, rstd = output
    ctx.save_for_backward(stream, inputs[2], rstd)
    ctx.mark_non_differentiable(rstd)
    ctx.set_materialize_grads(False)


def _backward(ctx, dy, dstream, _):
    if dy is None:  # only the residual stream went on
        return dstream, dstream, None, None
    dx, dweight = rms_norm_backward_op(dy, *ctx.saved_tensors, dstream)
    return dx, dx, dweight, None


add_rms_norm_op.register_autograd(_backward, setup_context=_setup_context)
