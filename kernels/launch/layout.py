"""Layout of tensors for a kernel: as rows, with the widest loads their addresses allow."""

from torch import Tensor


def as_rows(x: Tensor) -> Tensor:
    """`x` (..., N) as (M, N) with unit stride inside a row; copies only where strides forbid."""
    flat = x.flatten(0, -2) if x.dim() > 1 else x.unsqueeze(0)
    return flat if flat.stride(1) == 1 or flat.shape[1] == 1 else flat.contiguous()


def row_stride(rows: Tensor) -> int:
    """Elements from one row to the next; N for a single row, whose stride may be any number and,
    where odd, would cost a second, slower binary."""
    return rows.stride(0) if rows.shape[0] > 1 else rows.shape[1]


def vector_length(x: Tensor) -> int:
    """Elements in 128 bits, the widest load of every architecture."""
    return 16 // x.element_size()
