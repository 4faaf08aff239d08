"""Residual add + RMSNorm: r' = r + x, y = rms_norm(r')."""

from torch import Tensor

from kernels.rmsnorm import rms_norm_ref


def add_rms_norm(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """Add `x` to the residual stream and normalise the sum; returns (y, new residual).

    x, residual: (..., N) of one dtype, weight: (N,). Both results have x's shape and dtype.
    """
    return add_rms_norm_ref(x, residual, weight, eps)


def add_rms_norm_ref(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """The specification in plain torch; the norm sees the sum as it is stored."""
    stream = residual + x
    return rms_norm_ref(stream, weight, eps), stream
