"""Golden examples: requests with the answers they must get, carried inside every package.

A server that loads, reports ready and answers can still answer wrongly; only a fixed input with a
fixed output shows it. The release, every serving host and the load test compare with
`differences`.

golden.json is strict JSON: a list of {inputs, outputs, atol, rtol}, where a tensor is
{dtype, shape, data} with `data` in row-major order, flat or nested. NaN is null, an infinity is the
string "Infinity" or "-Infinity", and BYTES that are not UTF-8 are {"base64": "..."}.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from conf.errors import REFUSED, LockgateError
from conf.schema import SchemaError, build
from serving.artifact.digest import canonical_json
from serving.artifact.tensors import FLOATS, numpy_dtype, triton_dtype

FILE = "golden.json"
_INFINITIES = {"Infinity": math.inf, "-Infinity": -math.inf}


class GoldenError(LockgateError, ValueError):
    """golden.json cannot be read; the message has the place."""

    exit_code = REFUSED


@dataclass(frozen=True, eq=False)
class GoldenExample:
    """One request and its answer, as arrays by tensor name; BYTES are object arrays of bytes.

    Floating point must agree within `atol + rtol * |expected|`, everything else exactly.
    """

    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]
    atol: float
    rtol: float


@dataclass(frozen=True)
class _TensorJson:
    dtype: str
    shape: tuple[int, ...]
    data: list


@dataclass(frozen=True)
class _ExampleJson:
    inputs: dict[str, _TensorJson]
    outputs: dict[str, _TensorJson]
    atol: float
    rtol: float


def build_example(
    inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray], atol: float, rtol: float
) -> GoldenExample:
    """An example of a request and the answer that a model gave to it; text becomes UTF-8 bytes.

    Raises ValueError for a dtype that Triton does not have.
    """
    return GoldenExample(_normalized(inputs), _normalized(outputs), atol, rtol)


def golden_json(examples: Iterable[GoldenExample]) -> bytes:
    """The content of golden.json. Raises ValueError for tolerances that are not finite."""
    return canonical_json(
        [
            {
                "inputs": {name: _encoded(value) for name, value in one.inputs.items()},
                "outputs": {name: _encoded(value) for name, value in one.outputs.items()},
                "atol": one.atol,
                "rtol": one.rtol,
            }
            for one in examples
        ]
    )


def read_examples(folder: Path) -> tuple[GoldenExample, ...]:
    """The golden examples in `folder/golden.json`. Raises GoldenError."""
    path = Path(folder) / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found: tuple[_ExampleJson, ...] = build(tuple[_ExampleJson, ...], content, FILE)
        return tuple(
            GoldenExample(_decoded(one.inputs), _decoded(one.outputs), one.atol, one.rtol)
            for one in found
        )
    except FileNotFoundError:
        raise GoldenError(f"{folder} has no {FILE}") from None
    except (SchemaError, ValueError, OverflowError) as error:
        raise GoldenError(f"{path}: {error}") from None


def differences(example: GoldenExample, answer: Mapping[str, np.ndarray]) -> list[str]:
    """A sentence for each output that is not what it must be; none when they are equal.

    NaN equals NaN; a missing output, another shape or another dtype is a difference.
    """
    return [
        sentence
        for name, expected in example.outputs.items()
        if (sentence := _difference(name, expected, answer.get(name), example))
    ]


def _difference(
    name: str, expected: np.ndarray, found: np.ndarray | None, example: GoldenExample
) -> str:
    if found is None:
        return f"{name} is missing"
    got = np.asarray(found)
    if got.shape != expected.shape or got.dtype != expected.dtype:
        shapes = f"{got.dtype}{list(got.shape)} instead of {expected.dtype}"
        return f"{name} is {shapes}{list(expected.shape)}"
    if triton_dtype(expected.dtype) not in FLOATS:
        wrong = np.asarray(got != expected)
        what = f"{name} differs in {int(wrong.sum())} of {expected.size} values"
    else:
        got, expected = got.astype(np.float64), expected.astype(np.float64)
        wrong = ~np.isclose(got, expected, example.rtol, example.atol, equal_nan=True)
        with np.errstate(invalid="ignore"):
            error = np.abs(got[wrong] - expected[wrong])
        worst = "a NaN" if np.isnan(error).any() else f"{max(error, default=0.0):.3g}"
        what = f"{name} is off by {worst} (atol {example.atol:g}, rtol {example.rtol:g})"
        what += f" in {int(wrong.sum())} of {expected.size} values"
    if not wrong.any():
        return ""
    place = tuple(int(index) for index in np.argwhere(wrong)[0])
    values = f"{_plain(got[place])!r} instead of {_plain(expected[place])!r}"
    return f"{what}, first {name}{list(place)}: {values}"


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _normalized(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    found = {}
    for name, array in arrays.items():
        if array.dtype.kind in "OSU":
            words = np.empty(array.size, dtype=object)
            words[:] = [
                one if isinstance(one, bytes) else str(one).encode() for one in array.ravel()
            ]
            array = words.reshape(array.shape)
        triton_dtype(array.dtype)
        found[name] = array
    return found


def _encoded(array: np.ndarray) -> dict[str, Any]:
    dtype = triton_dtype(array.dtype)
    if dtype == "BYTES":
        data: list = [_text(one) for one in array.ravel()]
    elif dtype in FLOATS:
        data = [_number(one) for one in array.astype(np.float64).ravel().tolist()]
    else:
        data = array.ravel().tolist()
    return {"dtype": dtype, "shape": list(array.shape), "data": data}


def _text(value: bytes) -> str | dict[str, str]:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode("ascii")}


def _number(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def _decoded(tensors: Mapping[str, _TensorJson]) -> dict[str, np.ndarray]:
    found = {}
    for name, tensor in tensors.items():
        try:
            found[name] = _array(tensor)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{name}: {error}") from None
    return found


def _array(tensor: _TensorJson) -> np.ndarray:
    """The tensor as numpy. Raises ValueError or OverflowError when it does not fit."""
    kind, values = numpy_dtype(tensor.dtype), list(_flat(tensor.data))
    if min(tensor.shape, default=0) < 0:
        raise ValueError(f"shape {list(tensor.shape)} has a negative size")
    if tensor.dtype == "BYTES":
        array = np.empty(len(values), dtype=object)
        array[:] = [_bytes(value) for value in values]
    elif tensor.dtype in FLOATS:
        array = np.array([_float(value) for value in values], dtype=np.float64).astype(kind)
    else:
        wanted = bool if tensor.dtype == "BOOL" else int
        for value in values:
            if type(value) is not wanted:
                raise ValueError(f"{value!r} is no {tensor.dtype}")
        array = np.array(values, dtype=kind)
    return array.reshape(tensor.shape)


def _bytes(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and list(value) == ["base64"] and isinstance(value["base64"], str):
        return base64.b64decode(value["base64"], validate=True)
    raise ValueError(f'{value!r} is neither a string nor {{"base64": "..."}}')


def _float(value: object) -> float:
    if value is None:
        return math.nan
    if isinstance(value, str) and value in _INFINITIES:
        return _INFINITIES[value]
    if type(value) in (int, float):
        return float(value)  # type: ignore[arg-type]
    raise ValueError(f"{value!r} is no number")


def _flat(data: list) -> Iterator[Any]:
    for item in data:
        if isinstance(item, list):
            yield from _flat(item)
        else:
            yield item
