"""RMSNorm: y = x · rstd · w with rstd = (mean(x²) + eps)^-½ over the last dimension."""

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    """Normalise the last dimension of `x` by its root mean square and scale it by `weight`.

    x: (..., N), weight: (N,); returns (..., N) in x's dtype. Statistics are fp32 (fp64 for fp64).
    """
    return rms_norm_ref(x, weight, eps)


def rms_norm_ref(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    """The specification in plain torch: one rounding, at the end."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    rstd = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * rstd * weight).to(x.dtype)
