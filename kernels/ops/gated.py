"""Gated activations: SwiGLU h = silu(g) · u and GeGLU h = gelu(g) · u.

Both activations are g · σ(κ(g)), with κ(g) = g for SiLU and κ(g) = 2√(2/π)(g + 0.044715 g³) for
GELU in its tanh form, hence one formula for either:

    h = g·s·u      dg = dh · u · (s + g·s·(1−s)·κ'(g))      du = dh · g·s          s = σ(κ(g))

Shazeer, GLU Variants Improve Transformer, arXiv:2002.05202.

Bytes, M rows of F elements of e bytes: forward 3MFe, backward 5MFe; h is never kept.
"""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from kernels.backend import wants_triton
from kernels.launch.arguments import check_tensors, expect, promoted
from kernels.launch.config import launch_config
from kernels.launch.derivatives import differentiable_once, refuse_forward_mode
from kernels.launch.dtypes import accumulator_type
from kernels.launch.layout import as_rows, row_stride, vector_length

__all__ = ["geglu", "swiglu"]


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) · up; both (..., F), the result in the dtype of their product.

    Raises KernelError when they differ in shape.
    """
    gate, up = _checked("swiglu", gate, up)
    return glu_op(gate, up, False) if wants_triton(gate) else swiglu_ref(gate, up)


def geglu(gate: Tensor, up: Tensor) -> Tensor:
    """gelu(gate) · up with the tanh form of GELU; both (..., F), the result in the dtype of their
    product.

    Raises KernelError when they differ in shape.
    """
    gate, up = _checked("geglu", gate, up)
    return glu_op(gate, up, True) if wants_triton(gate) else geglu_ref(gate, up)


def _checked(op: str, gate: Tensor, up: Tensor) -> tuple[Tensor, ...]:
    check_tensors(op, gate=gate, up=up)
    expect(op, "up", up, gate.shape)
    refuse_forward_mode(op, gate, up)
    return promoted(gate, up)


def swiglu_ref(gate: Tensor, up: Tensor) -> Tensor:
    """The specification in plain torch."""
    return F.silu(gate) * up


def geglu_ref(gate: Tensor, up: Tensor) -> Tensor:
    """The specification in plain torch."""
    return F.gelu(gate, approximate="tanh") * up


@triton.jit
def _sigma(g, GELU: tl.constexpr):
    """σ(κ(g)) and κ'(g)."""
    if GELU:
        k = 1.5957691216057308 * (g + 0.044715 * g * g * g)
        slope = 1.5957691216057308 * (1 + 0.134145 * g * g)
    else:
        k = g
        slope = g * 0 + 1
    return 1 / (1 + tl.exp(-k)), slope


@triton.jit
def _forward_tile(GATE, UP, OUT, mask, ACC: tl.constexpr, GELU: tl.constexpr):
    g = tl.load(GATE, mask, other=0.0).to(ACC)
    u = tl.load(UP, mask, other=0.0).to(ACC)
    s, _ = _sigma(g, GELU)
    tl.store(OUT, (g * s * u).to(OUT.dtype.element_ty), mask)


@triton.jit
def _backward_tile(DOUT, GATE, UP, DGATE, DUP, mask, ACC: tl.constexpr, GELU: tl.constexpr):
    dh = tl.load(DOUT, mask, other=0.0).to(ACC)
    g = tl.load(GATE, mask, other=0.0).to(ACC)
    u = tl.load(UP, mask, other=0.0).to(ACC)
    s, slope = _sigma(g, GELU)
    tl.store(DUP, (dh * g * s).to(DUP.dtype.element_ty), mask)
    dg = dh * u * (s + g * s * (1 - s) * slope)
    tl.store(DGATE, dg.to(DGATE.dtype.element_ty), mask)


@triton.jit(do_not_specialize=["n", "tiles"])
def glu_fwd_kernel(
    GATE,  # rows of n elements
    UP,
    OUT,  # contiguous
    n: tl.int64,
    tiles,  # of one row
    stride_g,
    stride_u,
    stride_o,
    GELU: tl.constexpr,
    ACC: tl.constexpr,
    VEC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = (tl.program_id(0) // tiles).to(tl.int64)
    start = (tl.program_id(0) % tiles).to(tl.int64) * BLOCK
    GATE += row * stride_g
    UP += row * stride_u
    OUT += row * stride_o
    # A mask that changes only between whole vectors keeps loads 128 bits wide at any length;
    # the last few elements, fewer than a vector, follow on their own.
    whole = n // VEC * VEC
    cols = start + tl.arange(0, BLOCK)
    _forward_tile(GATE + cols, UP + cols, OUT + cols, cols // VEC * VEC < whole, ACC, GELU)
    if start + BLOCK > whole:
        rest = whole + tl.arange(0, VEC)
        _forward_tile(GATE + rest, UP + rest, OUT + rest, rest < n, ACC, GELU)


@triton.jit(do_not_specialize=["n", "tiles"])
def glu_bwd_kernel(
    DOUT,  # rows of n elements
    GATE,
    UP,
    DGATE,  # contiguous
    DUP,  # contiguous
    n: tl.int64,
    tiles,
    stride_d,
    stride_g,
    stride_u,
    stride_o,
    GELU: tl.constexpr,
    ACC: tl.constexpr,
    VEC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = (tl.program_id(0) // tiles).to(tl.int64)
    start = (tl.program_id(0) % tiles).to(tl.int64) * BLOCK
    DOUT += row * stride_d
    GATE += row * stride_g
    UP += row * stride_u
    DGATE += row * stride_o
    DUP += row * stride_o
    whole = n // VEC * VEC
    cols = start + tl.arange(0, BLOCK)
    _backward_tile(
        DOUT + cols, GATE + cols, UP + cols, DGATE + cols, DUP + cols,
        cols // VEC * VEC < whole, ACC, GELU,
    )  # fmt: skip
    if start + BLOCK > whole:
        rest = whole + tl.arange(0, VEC)
        _backward_tile(
            DOUT + rest, GATE + rest, UP + rest, DGATE + rest, DUP + rest, rest < n, ACC, GELU
        )


def _flattened(*tensors: Tensor) -> tuple[list[Tensor], list[int], int, int]:
    """(tensors as rows, their row strides and that of a result, rows, columns).

    Where all are contiguous they are one long row, whatever their last dimension.
    """
    if all(t.is_contiguous() for t in tensors):
        return list(tensors), [0] * (len(tensors) + 1), 1, tensors[0].numel()
    rows = [as_rows(t) for t in tensors]
    m, n = rows[0].shape
    return rows, [*(row_stride(t) for t in rows), n], m, n


def forward(gate: Tensor, up: Tensor, gelu: bool) -> Tensor:
    """Launch the forward; returns h (..., F)."""
    out = torch.empty_like(gate, memory_format=torch.contiguous_format)
    inputs, strides, m, n = _flattened(gate, up)
    if m and n:
        cfg = launch_config("glu_fwd", gate, n if m > 1 else 1)
        tiles = triton.cdiv(n, cfg.block)
        glu_fwd_kernel[(m * tiles,)](
            *inputs, out, n, tiles, *strides, gelu, accumulator_type(gate), vector_length(gate),
            cfg.block, **cfg.options,
        )  # fmt: skip
    return out


def backward(dout: Tensor, gate: Tensor, up: Tensor, gelu: bool) -> tuple[Tensor, Tensor]:
    """Launch the backward; returns dg and du (..., F)."""
    dgate = torch.empty_like(gate, memory_format=torch.contiguous_format)
    dup = torch.empty_like(up, memory_format=torch.contiguous_format)
    inputs, strides, m, n = _flattened(dout, gate, up)
    if m and n:
        cfg = launch_config("glu_bwd", gate, n if m > 1 else 1)
        tiles = triton.cdiv(n, cfg.block)
        glu_bwd_kernel[(m * tiles,)](
            *inputs, dgate, dup, n, tiles, *strides, gelu, accumulator_type(gate),
            vector_length(gate), cfg.block, **cfg.options,
        )  # fmt: skip
    return dgate, dup


@torch.library.custom_op("lockgate::glu", mutates_args=())
def glu_op(gate: Tensor, up: Tensor, gelu: bool) -> Tensor:
    """The torch op of `swiglu` and, with gelu, of `geglu`."""
    return forward(gate, up, gelu)


@glu_op.register_fake
def _(gate, up, gelu):
    return torch.empty_like(gate, memory_format=torch.contiguous_format)


@torch.library.custom_op("lockgate::glu_backward", mutates_args=())
def glu_backward_op(dout: Tensor, gate: Tensor, up: Tensor, gelu: bool) -> tuple[Tensor, Tensor]:
    """The backward of `lockgate::glu`; returns (dgate, dup)."""
    return backward(dout, gate, up, gelu)


@glu_backward_op.register_fake
def _(dout, gate, up, gelu):
    return (
        torch.empty_like(gate, memory_format=torch.contiguous_format),
        torch.empty_like(up, memory_format=torch.contiguous_format),
    )


differentiable_once(glu_backward_op, "swiglu, geglu")


def _setup_context(ctx, inputs, output):
    gate, up, ctx.gelu = inputs
    ctx.save_for_backward(gate, up)


def _backward(ctx, dout):
    return (*glu_backward_op(dout, *ctx.saved_tensors, ctx.gelu), None)


glu_op.register_autograd(_backward, setup_context=_setup_context)
