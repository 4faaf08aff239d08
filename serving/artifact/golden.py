"""Golden examples: inputs with the outputs they must give, carried inside every package.

A server that loads, reports ready and answers can still answer wrongly; only a known input with a
known output tells. The release and every serving host compare with this one function.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from serving.artifact.schema import SchemaError, build

FILE = "golden.json"

#: Triton's dtypes as numpy's. Text travels as bytes objects.
NUMPY = {
    "BOOL": np.bool_,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}


class GoldenError(ValueError):
    """golden.json cannot be read; the message says where."""


@dataclass(frozen=True)
class GoldenTensor:
    """One tensor as JSON: `data` in row-major order, flat or nested; text as strings, and null for
    the NaN that JSON does not have."""

    dtype: str
    shape: tuple[int, ...]
    data: list

    def array(self) -> np.ndarray:
        """The tensor as numpy, text as bytes objects. Raises ValueError when it does not fit."""
        if self.dtype not in NUMPY:
            raise ValueError(f"dtype {self.dtype!r} is not one of {', '.join(NUMPY)}")
        values = list(_flat(self.data))
        if self.dtype == "BYTES":
            texts = np.empty(len(values), dtype=object)
            texts[:] = [str(text).encode() for text in values]
            return texts.reshape(self.shape)
        numbers = [math.nan if value is None else value for value in values]
        return np.array(numbers, dtype=NUMPY[self.dtype]).reshape(self.shape)


@dataclass(frozen=True)
class Example:
    """One request and its answer; numbers must agree within atol + rtol * |expected|."""

    inputs: dict[str, GoldenTensor]
    outputs: dict[str, GoldenTensor]
    atol: float
    rtol: float

    def request(self) -> dict[str, np.ndarray]:
        return {name: tensor.array() for name, tensor in self.inputs.items()}


def load(folder: Path) -> tuple[Example, ...]:
    """The golden examples in `folder/golden.json`. Raises GoldenError."""
    path = Path(folder) / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        examples: tuple[Example, ...] = build(tuple[Example, ...], content, FILE)
        for example in examples:
            for tensor in (*example.inputs.values(), *example.outputs.values()):
                tensor.array()
    except FileNotFoundError:
        raise GoldenError(f"{folder} has no {FILE}") from None
    except (SchemaError, ValueError, OverflowError, TypeError) as error:
        raise GoldenError(f"{path}: {error}") from None
    return examples


def differences(example: Example, answer: Mapping[str, np.ndarray]) -> list[str]:
    """A sentence for each output that is not what it must be; none when they are equal.

    NaN equals NaN; a missing output, another shape or another dtype is a difference.
    """
    found = []
    for name, tensor in example.outputs.items():
        expected = tensor.array()
        if name not in answer:
            found.append(f"{name} is missing")
            continue
        got = np.asarray(answer[name])
        if got.shape != expected.shape or got.dtype != expected.dtype:
            shapes = f"{got.dtype}{list(got.shape)} instead of {expected.dtype}"
            found.append(f"{name} is {shapes}{list(expected.shape)}")
        elif expected.dtype == object or expected.dtype.kind in "biu":
            wrong = int((got != expected).sum())
            if wrong:
                found.append(f"{name} differs in {wrong} of {expected.size} values")
        elif not np.allclose(got, expected, example.rtol, example.atol, equal_nan=True):
            error = np.abs(got.astype(float) - expected.astype(float))
            worst = "a NaN" if np.isnan(error).any() else f"{float(error.max()):.3g}"
            allowed = f"atol {example.atol:g}, rtol {example.rtol:g}"
            found.append(f"{name} is off by {worst} ({allowed})")
    return found


def _flat(data: list) -> Iterator[Any]:
    for item in data:
        if isinstance(item, list):
            yield from _flat(item)
        else:
            yield item
