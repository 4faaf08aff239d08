"""Golden examples: requests answered by the runtime itself, as JSON can carry them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from serving.artifact.golden import Example, GoldenTensor

DTYPES = {"f4": "FP32", "f8": "FP64", "i4": "INT32", "i8": "INT64"}


def example(
    inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray], atol: float, rtol: float
) -> Example:
    """One request and the answer it must get."""
    return Example(_tensors(inputs), _tensors(outputs), atol, rtol)


def _tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, GoldenTensor]:
    return {name: _tensor(array) for name, array in arrays.items()}


def _tensor(array: np.ndarray) -> GoldenTensor:
    flat = array.reshape(-1).tolist()
    if array.dtype.kind == "O":
        words = [one.decode() if isinstance(one, bytes) else str(one) for one in flat]
        return GoldenTensor("BYTES", array.shape, words)
    if array.dtype.kind == "f":  # JSON has no NaN; null reads back as NaN
        flat = [None if np.isnan(value) else value for value in flat]
    return GoldenTensor(DTYPES[array.dtype.str[1:]], array.shape, flat)
