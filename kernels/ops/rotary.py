"""RoPE: each pair (x₁, x₂) of a head's two halves is turned by the angle of its position.

    y₁ = x₁·cos − x₂·sin        y₂ = x₂·cos + x₁·sin

and the backward is the turn by the negative angle. With QK-norm, x is first RMS-normalised over
the head and scaled by a weight; the backward recomputes the norm from q and k.

Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, arXiv:2104.09864, in the
layout of halves instead of neighbours.

Bytes for M tokens, Hq + Hk heads of D elements of e bytes: 2M(Hq+Hk)De, the cos and sin tables
apart; the backward with QK-norm 3M(Hq+Hk)De + 16PD + 8D for P programs. Positions write and read
2·M·R/2 elements of the tables more. Where only the first R of D elements turn, the others are
copied, 2M(Hq+Hk)De more, and QK-norm is a pass of its own.
"""

import torch
from torch import Tensor

from kernels.backend import KernelError, wants_triton
from kernels.launch.arguments import (
    check_constants,
    check_device,
    check_dimensions,
    check_number,
    check_size,
    check_tensors,
    expect,
    promoted,
)
from kernels.launch.config import largest_size
from kernels.launch.derivatives import refuse_forward_mode
from kernels.ops.rmsnorm import rms_norm, rms_norm_ref
from kernels.ops.rotation import rope_op

__all__ = ["rope"]

LARGEST = largest_size("rope")
WHOLE = (torch.int64, torch.int32)


def rope(
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    q_weight: Tensor | None = None,
    k_weight: Tensor | None = None,
    eps: float = 1e-6,
    *,
    positions: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Rotate queries and keys out of place; returns (q, k) of the same shapes and dtypes.

    q: (B, S, Hq, D), k: (B, S, Hk, D), cos and sin: (T, R/2), row t for position t, with R even and
    at most D; the elements of a head from R on stay as they are. Token s of every sequence is at
    position s, or at positions[b, s] of (B, S), or positions[0, s] of (1, S): packed documents,
    padding, decoding. With q_weight and k_weight (D,), each head is RMS-normalised and scaled
    before it is rotated (QK-norm). The halves are [0, R/2) and [R/2, R), as in Llama's checkpoints.
    Raises KernelError for shapes that do not fit, an odd D or one beyond the launch table, fewer
    rows than positions, a position outside the tables (on a GPU torch's own indexing ends the
    program), tables that require gradients, or one weight without the other.
    """
    if (q_weight is None) != (k_weight is None):
        raise KernelError("rope: QK-norm needs both q_weight and k_weight; only one was given")
    _check(q, k, cos, sin, q_weight, k_weight, eps, positions)
    refuse_forward_mode("rope", q, k, cos, sin, q_weight, k_weight)
    if not wants_triton(q):
        return rope_ref(q, k, cos, sin, q_weight, k_weight, eps, positions=positions)
    batch, tokens, _, dim = q.shape
    if positions is None:
        if cos.shape[0] > tokens:
            cos, sin = cos[:tokens], sin[:tokens]
    else:  # one sequence of all tokens, each with a row of the tables
        rows = positions.expand(batch, tokens).reshape(-1)
        cos, sin = cos[rows], sin[rows]
    turns = 2 * cos.shape[1]
    if turns < dim and q_weight is not None:
        q, k = rms_norm(q, q_weight, eps), rms_norm(k, k_weight, eps)
        q_weight = k_weight = None
    turned = []
    for x in (q, k):
        part = x[..., :turns] if turns < dim else x
        turned.append(part if positions is None else part.reshape(1, -1, *part.shape[2:]))
    turned = rope_op(*promoted(*turned), cos, sin, q_weight, k_weight, eps, False)
    return _whole(turned[0], q), _whole(turned[1], k)


def _whole(turned: Tensor, x: Tensor) -> Tensor:
    """The heads of x (B, S, H, D) with their first R elements as `turned`, of B·S tokens, has them;
    in x's dtype."""
    turned = turned.to(x.dtype).view(*x.shape[:3], turned.shape[-1])
    turns = turned.shape[-1]
    return torch.cat((turned, x[..., turns:]), -1) if turns < x.shape[-1] else turned


def _check(
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    eps: float,
    positions: Tensor | None,
) -> None:
    check_tensors("rope", q=q, k=k, cos=cos, sin=sin, q_weight=q_weight, k_weight=k_weight)
    check_dimensions("rope", "q", q, "B, S, Hq, D")
    check_dimensions("rope", "k", k, "B, S, Hk, D")
    check_dimensions("rope", "cos", cos, "T, R/2")
    batch, tokens, _, dim = q.shape
    if dim % 2:
        raise KernelError(f"rope: a head of {dim} has no two halves; the head must be even")
    expect("rope", "k", k, (batch, tokens, k.shape[2], dim))
    length, half = cos.shape
    if 2 * half > dim or (half == 0 and dim):
        raise KernelError(
            f"rope: cos is {list(cos.shape)}, and a head of {dim} has {dim // 2} pairs"
        )
    expect("rope", "sin", sin, cos.shape)
    if positions is None:
        if length < tokens:
            raise KernelError(f"rope: cos has {length} rows, and there are {tokens} positions")
    else:
        _check_positions(positions, length, q)
    for name, weight in (("q_weight", q_weight), ("k_weight", k_weight)):
        if weight is not None:
            expect("rope", name, weight, (dim,))
    check_number("rope", "eps", eps)
    check_size("rope", "the head", dim, LARGEST)
    check_constants("rope", cos=cos, sin=sin)


def _check_positions(positions: Tensor, length: int, q: Tensor) -> None:
    batch, tokens = q.shape[:2]
    if not isinstance(positions, Tensor) or positions.dtype not in WHOLE:
        kind = positions.dtype if isinstance(positions, Tensor) else type(positions).__name__
        raise KernelError(f"rope: positions is {kind}, not a tensor of whole numbers")
    if tuple(positions.shape) not in ((batch, tokens), (1, tokens)):
        raise KernelError(
            f"rope: positions is {list(positions.shape)}, not {[batch, tokens]} or {[1, tokens]}"
        )
    check_device("rope", q=q, positions=positions)
    # Elsewhere the comparison would wait for the device, or there is nothing to compare yet.
    if positions.device.type == "cpu" and positions.numel() and not torch.compiler.is_compiling():
        least, most = positions.min().item(), positions.max().item()
        if least < 0 or most >= length:
            wrong = least if least < 0 else most
            raise KernelError(f"rope: position {wrong} is not a row of tables of {length} rows")


def rope_ref(
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    q_weight: Tensor | None = None,
    k_weight: Tensor | None = None,
    eps: float = 1e-6,
    *,
    positions: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The specification in plain torch."""
    if q_weight is not None and k_weight is not None:
        q, k = rms_norm_ref(q, q_weight, eps), rms_norm_ref(k, k_weight, eps)
    rows = slice(q.shape[1]) if positions is None else positions
    cos, sin = cos[rows].unsqueeze(-2), sin[rows].unsqueeze(-2)  # ([B,] S, 1, R/2)
    return _rotate(q, cos, sin), _rotate(k, cos, sin)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    turning, rest = x.tensor_split([2 * cos.shape[-1]], dim=-1)
    first, second = turning.chunk(2, dim=-1)
    turned = first * cos - second * sin, second * cos + first * sin
    return torch.cat([part.to(x.dtype) for part in (*turned, rest)], -1)
