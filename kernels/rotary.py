"""RoPE: each pair (x₁, x₂) of a head's two halves is turned by the angle of its position.

y₁ = x₁·cos − x₂·sin, y₂ = x₂·cos + x₁·sin. With QK-norm the head is RMS-normalised first.
"""

import torch
from torch import Tensor

from kernels.rmsnorm import rms_norm_ref


def rope(
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    q_weight: Tensor | None = None,
    k_weight: Tensor | None = None,
    eps: float = 1e-6,
) -> tuple[Tensor, Tensor]:
    """Rotate queries and keys out of place; returns (q, k) of the same shapes and dtypes.

    q: (B, S, Hq, D), k: (B, S, Hk, D), cos and sin: (S, D/2), row s for position s of every
    sequence. With q_weight and k_weight (D,), each head is RMS-normalised and scaled before it is
    rotated (QK-norm). The halves are [0, D/2) and [D/2, D), as in Llama's checkpoints.
    """
    return rope_ref(q, k, cos, sin, q_weight, k_weight, eps)


def rope_ref(
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    q_weight: Tensor | None = None,
    k_weight: Tensor | None = None,
    eps: float = 1e-6,
) -> tuple[Tensor, Tensor]:
    """The specification in plain torch."""
    if q_weight is not None and k_weight is not None:
        q, k = rms_norm_ref(q, q_weight, eps), rms_norm_ref(k, k_weight, eps)
    return _rotate(q, cos, sin), _rotate(k, cos, sin)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    cos, sin = cos[:, None, :], sin[:, None, :]  # (S, 1, D/2) against (B, S, H, D/2)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1).to(x.dtype)
