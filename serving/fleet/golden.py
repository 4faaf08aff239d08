"""Golden examples: known inputs whose outputs every host must give, over gRPC and over HTTP.

Readiness proves nothing: a Triton whose Python has the wrong numpy reports ready and answers gRPC
with wrong tensors, and HTTP with 500. Only a known answer proves that a host computes what was
released.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.fleet.inventory import FleetError

NUMPY = {
    "BOOL": "bool", "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64",
    "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64",
    "FP16": "float16", "FP32": "float32", "FP64": "float64", "BYTES": "object",
}  # fmt: skip


class GoldenMismatch(FleetError):
    """A host gave another answer than the release; the message says where and by how much."""


@dataclass(frozen=True)
class Example:
    """One request and its answer. Arrays by tensor name; BYTES are object arrays of bytes."""

    inputs: dict[str, tuple[str, Any]]
    outputs: dict[str, tuple[str, Any]]
    atol: float
    rtol: float


def read(path: Path) -> tuple[Example, ...]:
    """The examples of a package's `golden.json`. Raises FleetError for none or a broken file."""
    try:
        content = json.loads(path.read_bytes())
        examples = tuple(_example(entry) for entry in content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FleetError(f"{path} holds no golden examples that can be read: {error!r}") from error
    if not examples:
        raise FleetError(f"{path} is empty: without golden examples no host can be proven right.")
    return examples


def array(dtype: str, shape: Any, data: Any) -> Any:
    """A numpy array of Triton's `dtype` from JSON: strings become UTF-8 bytes.

    Raises ValueError when `data` does not fill `shape`, KeyError for an unknown dtype.
    """
    import numpy

    flat = list(_flatten(data))
    if dtype == "BYTES":
        values = numpy.empty(len(flat), dtype=object)
        values[:] = [item.encode() if isinstance(item, str) else bytes(item) for item in flat]
        return values.reshape(shape)
    # JSON has no NaN: a missing number is null.
    plain = [float("nan") if item is None else item for item in flat]
    return numpy.array(plain, dtype=NUMPY[dtype]).reshape(shape)


def check(example: Example, answer: Mapping[str, Any], where: str) -> None:
    """Raises GoldenMismatch unless `answer` (arrays by name) is the example's.

    Floating point within `atol + rtol * |expected|`, everything else exactly, NaN equal to NaN.
    """
    import numpy

    for name, (dtype, expected) in example.outputs.items():
        if name not in answer:
            have = ", ".join(answer) or "none"
            raise GoldenMismatch(f"{where}: the answer lacks output {name!r} (it has {have}).")
        got = numpy.asarray(answer[name])
        if got.shape != expected.shape:
            raise GoldenMismatch(f"{where}: {name} has shape {got.shape}, not {expected.shape}.")
        if dtype.startswith("FP"):
            close = numpy.isclose(
                got.astype("float64"), expected.astype("float64"),
                rtol=example.rtol, atol=example.atol, equal_nan=True,
            )  # fmt: skip
        else:
            close = numpy.asarray(got == expected)
        if not close.all():
            first = numpy.argwhere(~close)[0] if close.shape else ()
            place = tuple(int(index) for index in first)
            raise GoldenMismatch(
                f"{where}: {name}{list(place)} is {got[place]!r}, the release says "
                f"{expected[place]!r} ({int((~close).sum())} of {close.size} differ)."
            )


def http_request(example: Example) -> bytes:
    """The example's inputs as the JSON body of the V2 inference protocol."""
    tensors = []
    for name, (dtype, values) in example.inputs.items():
        flat = [v.decode() if isinstance(v, bytes) else v for v in values.reshape(-1).tolist()]
        if dtype.startswith("FP"):
            # NaN is not standard JSON, but it is what Triton's reader takes and clients send.
            flat = [float(v) for v in flat]
        tensors.append({"name": name, "datatype": dtype, "shape": list(values.shape), "data": flat})
    return json.dumps({"inputs": tensors}).encode()


def http_answer(body: bytes) -> dict[str, Any]:
    """The outputs of a V2 inference answer as arrays by name. Raises ValueError, KeyError."""
    content = json.loads(body)
    return {
        entry["name"]: array(entry["datatype"], entry["shape"], entry["data"])
        for entry in content["outputs"]
    }


def _example(entry: Mapping[str, Any]) -> Example:
    return Example(
        inputs={name: _tensor(tensor) for name, tensor in entry["inputs"].items()},
        outputs={name: _tensor(tensor) for name, tensor in entry["outputs"].items()},
        atol=float(entry["atol"]),
        rtol=float(entry["rtol"]),
    )


def _tensor(tensor: Mapping[str, Any]) -> tuple[str, Any]:
    return tensor["dtype"], array(tensor["dtype"], tensor["shape"], tensor["data"])


def _flatten(data: Any) -> Any:
    if isinstance(data, list):
        for item in data:
            yield from _flatten(item)
    else:
        yield data
