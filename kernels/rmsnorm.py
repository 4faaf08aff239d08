"""RMSNorm over the last dimension.

    y = x · rstd · w                       rstd = (mean(x²) + eps)^-½
    dx = (dy·w − x̂ · mean(dy·w·x̂)) · rstd   dw = Σ_rows dy · x̂          x̂ = x · rstd

Bytes, M rows of N elements of e bytes: forward 2MNe + 4M, backward 3MNe + 4M + 8PN + Ne for P
partial sums of dw, the weight vector apart.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.backend import wants_triton
from kernels.layout import as_rows, row_stride, wide
from kernels.partials import column_sum
from kernels.settings import launch


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    """Normalise the last dimension of `x` by its root mean square and scale it by `weight`.

    x: (..., N), weight: (N,); returns (..., N) in x's dtype. Statistics are fp32 (fp64 for fp64).
    """
    if wants_triton(x):
        return rms_norm_op(x, weight, eps)[0]
    return rms_norm_ref(x, weight, eps)


def rms_norm_ref(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    """The specification in plain torch: one rounding, at the end."""
    wide_x = x.to(torch.promote_types(x.dtype, torch.float32))
    rstd = torch.rsqrt(wide_x.square().mean(-1, keepdim=True) + eps)
    return (wide_x * rstd * weight).to(x.dtype)


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
    ACC: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    cols = tl.arange(0, BLOCK)
    mask = (row < m)[:, None] & (cols < n)[None, :]
    x = tl.load(X + row[:, None] * stride_x + cols[None, :], mask, other=0.0).to(ACC)
    rstd = tl.rsqrt(tl.sum(x * x, 1) / n + eps)
    weight = tl.load(WEIGHT + cols, cols < n, other=0.0).to(ACC)
    y = x * rstd[:, None] * weight[None, :]
    tl.store(RSTD + row, rstd, row < m)
    tl.store(Y + row[:, None] * n + cols[None, :], y.to(Y.dtype.element_ty), mask)


@triton.jit(do_not_specialize=["m", "span"])
def rms_norm_bwd_kernel(
    DY,  # (m, n)
    X,  # (m, n)
    WEIGHT,  # (n,)
    RSTD,  # (m,)
    DSTREAM,  # (m, n): what else flows into x, or nothing
    DX,  # (m, n), contiguous
    DWEIGHT,  # (programs, n): partial sums
    m,
    n,
    stride_dy,
    stride_x,
    stride_ds,
    span,  # rows of one program
    HAS_DSTREAM: tl.constexpr,
    ACC: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    pid = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    inside = cols < n
    weight = tl.load(WEIGHT + cols, inside, other=0.0)
    dweight = tl.zeros((BLOCK,), ACC)
    end = tl.minimum((pid + 1) * span, m)
    for first in range(pid * span, end, ROWS):
        row = first + tl.arange(0, ROWS)
        mask = (row < end)[:, None] & inside[None, :]
        x = tl.load(X + row[:, None] * stride_x + cols[None, :], mask, other=0.0).to(ACC)
        dy = tl.load(DY + row[:, None] * stride_dy + cols[None, :], mask, other=0.0).to(ACC)
        rstd = tl.load(RSTD + row, row < end, other=0.0)[:, None]
        x_hat = x * rstd
        g = dy * weight.to(ACC)[None, :]
        dx = (g - x_hat * (tl.sum(g * x_hat, 1) / n)[:, None]) * rstd
        if HAS_DSTREAM:
            dx += tl.load(DSTREAM + row[:, None] * stride_ds + cols[None, :], mask, other=0.0)
        tl.store(DX + row[:, None] * n + cols[None, :], dx.to(DX.dtype.element_ty), mask)
        dweight += tl.sum(dy * x_hat, 0)
    tl.store(DWEIGHT + pid * n + cols, dweight, inside)


@triton.jit(do_not_specialize=["m"])
def rms_norm_dot_kernel(
    DY,  # (m, n)
    X,  # (m, n)
    WEIGHT,  # (n,)
    RSTD,  # (m,)
    MEAN,  # (m,): mean(dy·w·x̂) of each row
    m,
    n,
    stride_dy,
    stride_x,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """First half of the backward for rows too wide to be held beside their dw sums."""
    row = tl.program_id(0).to(tl.int64)
    total = tl.zeros((BLOCK,), ACC)
    for first in range(0, n, BLOCK):
        cols = first + tl.arange(0, BLOCK)
        inside = cols < n
        x = tl.load(X + row * stride_x + cols, inside, other=0.0).to(ACC)
        dy = tl.load(DY + row * stride_dy + cols, inside, other=0.0).to(ACC)
        total += x * dy * tl.load(WEIGHT + cols, inside, other=0.0).to(ACC)
    tl.store(MEAN + row, tl.sum(total, 0) * tl.load(RSTD + row) / n)


@triton.jit(do_not_specialize=["m", "span"])
def rms_norm_tile_kernel(
    DY,  # (m, n)
    X,  # (m, n)
    WEIGHT,  # (n,)
    RSTD,  # (m,)
    MEAN,  # (m,)
    DSTREAM,  # (m, n) or nothing
    DX,  # (m, n), contiguous
    DWEIGHT,  # (programs, n)
    m,
    n,
    stride_dy,
    stride_x,
    stride_ds,
    span,
    HAS_DSTREAM: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Second half: with each row's mean known, columns no longer need each other."""
    pid = tl.program_id(0).to(tl.int64)
    cols = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = cols < n
    weight = tl.load(WEIGHT + cols, inside, other=0.0).to(ACC)
    dweight = tl.zeros((BLOCK,), ACC)
    for row in range(pid * span, tl.minimum((pid + 1) * span, m)):
        x = tl.load(X + row * stride_x + cols, inside, other=0.0).to(ACC)
        dy = tl.load(DY + row * stride_dy + cols, inside, other=0.0).to(ACC)
        rstd = tl.load(RSTD + row)
        x_hat = x * rstd
        dx = (dy * weight - x_hat * tl.load(MEAN + row)) * rstd
        if HAS_DSTREAM:
            dx += tl.load(DSTREAM + row * stride_ds + cols, inside, other=0.0)
        tl.store(DX + row * n + cols, dx.to(DX.dtype.element_ty), inside)
        dweight += dy * x_hat
    tl.store(DWEIGHT + pid * n + cols, dweight, inside)


def statistics_dtype(x: Tensor) -> torch.dtype:
    """dtype of rstd and of partial sums."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def forward(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Launch the forward; returns y (..., N) and rstd (M,)."""
    rows = as_rows(x)
    m, n = rows.shape
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    rstd = x.new_empty(m, dtype=statistics_dtype(x))
    if m and n:
        how = launch("rms_norm_fwd", x, n)
        rms_norm_fwd_kernel[(triton.cdiv(m, how.rows),)](
            rows, weight.contiguous(), y, rstd, m, n, row_stride(rows), eps,
            wide(x), how.rows, how.block, **how.options,
        )  # fmt: skip
    return y, rstd


def backward(
    dy: Tensor, x: Tensor, weight: Tensor, rstd: Tensor, dstream: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Launch the backward; returns dx (..., N) and dw (N,), dstream (..., N) added to dx."""
    rows, dy_rows = as_rows(x), as_rows(dy)
    ds_rows = as_rows(dstream) if dstream is not None else dy_rows
    m, n = rows.shape
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    if not (m and n):
        return dx, torch.zeros_like(weight)
    kernel = "rms_norm_bwd" if dstream is None else "add_rms_norm_bwd"
    how = launch(kernel, x, n)
    span = triton.cdiv(m, min(how.programs, triton.cdiv(m, how.rows)))
    programs = triton.cdiv(m, span)
    partial = x.new_empty(programs, n, dtype=statistics_dtype(x))
    weight_row = weight.contiguous()
    strides = row_stride(dy_rows), row_stride(rows)
    flags = dstream is not None, wide(x)
    if how.block >= n:
        rms_norm_bwd_kernel[(programs,)](
            dy_rows, rows, weight_row, rstd, ds_rows, dx, partial, m, n, *strides,
            row_stride(ds_rows), span, *flags, how.rows, how.block, **how.options,
        )  # fmt: skip
    else:
        mean = torch.empty_like(rstd)
        rms_norm_dot_kernel[(m,)](
            dy_rows, rows, weight_row, rstd, mean, m, n, *strides, wide(x), how.block,
            **how.options,
        )  # fmt: skip
        rms_norm_tile_kernel[(programs, triton.cdiv(n, how.block))](
            dy_rows, rows, weight_row, rstd, mean, ds_rows, dx, partial, m, n, *strides,
            row_stride(ds_rows), span, *flags, how.block, **how.options,
        )  # fmt: skip
    return dx, column_sum(partial, weight.dtype)


@torch.library.custom_op("lockgate::rms_norm", mutates_args=())
def rms_norm_op(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The torch op of `rms_norm`; returns (y, rstd)."""
    return forward(x, weight, eps)


@rms_norm_op.register_fake
def _(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    rows = x.numel() // x.shape[-1] if x.shape[-1] != 0 else 0
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    return y, x.new_empty(rows, dtype=statistics_dtype(x))


@torch.library.custom_op("lockgate::rms_norm_backward", mutates_args=())
def rms_norm_backward_op(
    dy: Tensor, x: Tensor, weight: Tensor, rstd: Tensor, dstream: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The backward of `rms_norm` and, with dstream, of `add_rms_norm`; returns (dx, dw)."""
    return backward(dy, x, weight, rstd, dstream)


@rms_norm_backward_op.register_fake
def _(dy, x, weight, rstd, dstream):
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    return dx, torch.empty_like(weight, memory_format=torch.contiguous_format)


def _setup_context(ctx, inputs, output):
    x, weight, _ = inputs
    ctx.save_for_backward(x, weight, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx, dy, _):
    if dy is None:
        return None, None, None
    dx, dweight = rms_norm_backward_op(dy, *ctx.saved_tensors, None)
    return dx, dweight, None


rms_norm_op.register_autograd(_backward, setup_context=_setup_context)
