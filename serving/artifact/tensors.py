"""Tensors of a model's interface, and the one table of their types: Triton's names and numpy's.

The numpy side is `tritonclient`'s own table. It is imported on the first use, so that reading a
manifest needs neither numpy nor the client.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from conf.schema import SchemaError

if TYPE_CHECKING:
    import numpy as np

#: Every tensor type that Triton serves. BF16 is numpy's through `ml_dtypes`; BYTES are objects.
DTYPES = (
    "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64",
    "FP16", "BF16", "FP32", "FP64", "BYTES",
)  # fmt: skip
FLOATS = ("FP16", "BF16", "FP32", "FP64")


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: `shape` has -1 where the size is free, the batch included.

    An `optional` input may be left out of a request. Raises SchemaError for an unknown dtype.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    optional: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            known = ", ".join(DTYPES)
            raise SchemaError(f"{self.name} has dtype {self.dtype!r}, not one of {known}")


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """numpy's dtype of Triton's `dtype`; object for BYTES. Raises ValueError for an unknown one."""
    import numpy
    from tritonclient.utils import triton_to_np_dtype

    found = triton_to_np_dtype(dtype)
    if found is None:
        raise ValueError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    return numpy.dtype(found)


def triton_dtype(dtype: np.dtype[Any]) -> str:
    """Triton's name of numpy's `dtype`. Raises ValueError where it has none, as for complex."""
    from tritonclient.utils import np_to_triton_dtype

    found = np_to_triton_dtype(dtype)
    if found is None:
        raise ValueError(f"Triton has no tensor type for numpy's {dtype}")
    return found
