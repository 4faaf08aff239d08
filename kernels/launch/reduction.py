"""Sum of per-program partial results in a fixed order, so that weight gradients never depend on
the order in which programs finish (as with an atomic add)."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.launch.config import launch_config


@triton.jit(do_not_specialize=["parts"])
def column_sum_kernel(
    PARTIAL,  # (parts, n)
    OUT,  # (n,)
    parts,
    n,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    cols = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = cols < n
    total = tl.zeros((BLOCK,), PARTIAL.dtype.element_ty)
    for first in range(0, parts, ROWS):
        row = first + tl.arange(0, ROWS)
        mask = (row < parts)[:, None] & inside[None, :]
        tile = tl.load(PARTIAL + row.to(tl.int64)[:, None] * n + cols[None, :], mask, other=0.0)
        total += tl.sum(tile, 0)
    tl.store(OUT + cols, total.to(OUT.dtype.element_ty), inside)


def column_sum(partial: Tensor, dtype: torch.dtype) -> Tensor:
    """Sum `partial` (P, N) over P; returns (N,) in `dtype`, rounded once."""
    parts, n = partial.shape
    out = partial.new_empty(n, dtype=dtype)
    cfg = launch_config("column_sum", partial, n)
    grid = (triton.cdiv(n, cfg.block),)
    column_sum_kernel[grid](partial, out, parts, n, cfg.rows, cfg.block, **cfg.options)
    return out
