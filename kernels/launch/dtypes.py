"""Types that sums are kept in: fp32 for all narrower inputs, fp64 for fp64."""

import torch
from torch import Tensor


def statistics_dtype(x: Tensor) -> torch.dtype:
    """torch dtype of a kernel's statistics (rstd, lse, losses) and partial sums."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def accumulator_type(x: Tensor):
    """Triton type of a kernel's sums over `x`; fp64 lets gradients be checked."""
    import triton.language as tl

    return tl.float64 if x.dtype == torch.float64 else tl.float32
