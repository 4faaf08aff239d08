"""Requests by gRPC for the model `same`: well formed ones of any tensors, and one malformed of each
kind, as bytes of ModelInferRequest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2
from tritonclient.utils import serialize_byte_tensor

from serving.artifact.tensors import triton_dtype
from tests.serving.fleet.edge_bed import SAME

Request = service_pb2.ModelInferRequest
Contents = service_pb2.InferTensorContents
Tensor, Output = Request.InferInputTensor, Request.InferRequestedOutputTensor
FIELDS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents",
    "INT32": "int_contents", "INT64": "int64_contents", "UINT8": "uint_contents",
    "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
"""The field that carries a datatype one by one; 16-bit floats have none."""


def encode(inputs: Mapping[str, np.ndarray], *, raw: bool, **members: Any) -> Request:
    """The request of `inputs`, as raw bytes or value by value."""
    request = Request(**{"model_name": SAME, **members})
    for name, value in inputs.items():
        dtype = triton_dtype(value.dtype)
        tensor = request.inputs.add(name=name, datatype=dtype, shape=value.shape)
        if raw:
            request.raw_input_contents.append(raw_bytes(value, dtype))
        else:
            tensor.contents.SetInParent()
            getattr(tensor.contents, FIELDS[dtype]).extend(value.ravel().tolist())
    return request


def raw_bytes(value: np.ndarray, dtype: str) -> bytes:
    if dtype == "BYTES":
        made = serialize_byte_tensor(value)
        return b"" if made.size == 0 else bytes(made.item())
    return value.tobytes()


def _one(datatype: str = "FP32", shape: Any = (1,), **members: Any) -> Any:
    return Tensor(name=f"x_{datatype}", datatype=datatype, shape=shape, **members)


def _raw(*contents: bytes, **tensor: Any) -> bytes:
    return Request(
        model_name=SAME, inputs=[_one(**tensor)], raw_input_contents=contents
    ).SerializeToString()


def _typed(contents: Any, datatype: str = "FP32", shape: Any = (1,)) -> bytes:
    tensor = _one(datatype, shape, contents=contents)
    return Request(model_name=SAME, inputs=[tensor]).SerializeToString()


def _with(**members: Any) -> bytes:
    """A good request with other members."""
    good = {"model_name": SAME, "inputs": [_one()], "raw_input_contents": [b"\0" * 4]}
    return Request(**{**good, **members}).SerializeToString()


def _parameters(**values: Any) -> dict[str, Any]:
    return {
        key: service_pb2.InferParameter(**value) if isinstance(value, dict) else value
        for key, value in values.items()
    }


GOOD = _with()


def malformed() -> dict[str, bytes]:
    """What every service must refuse, by its mistake."""
    return {**_wire(), **_names(), **_shapes(), **_contents(), **_tensors(), **_options()}


def _wire() -> dict[str, bytes]:
    return {
        "nothing at all": b"",
        "cut off": GOOD[:-1],
        "cut off in a tag": GOOD + b"\x80",
        "a number of 11 bytes": GOOD + b"\x80" * 10 + b"\x01",
        "a length beyond the end": GOOD + b"\x3a\xff\xff\xff\xff\x0f",
        "a negative length": GOOD + b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        "a field that is unknown": GOOD + b"\x42\x00",
        "a field of number 0": GOOD + b"\x02\x00",
        "a group": GOOD + b"\x0b\x0c",
        "a name that is a number": b"\x08\x01" + GOOD,
        "a model twice": GOOD + b"\x0a\x04same",
        "a version twice": GOOD + b"\x12\x011\x12\x011",
        "an id twice": GOOD + b"\x1a\x01a\x1a\x01b",
        "an id that is not UTF-8": GOOD + b"\x1a\x01\xff",
        "an id with half a surrogate pair": GOOD + b"\x1a\x03\xed\xa0\x80",
        "JSON": b'{"inputs":[]}',
        "deep nesting": GOOD + b"\x2a\x7f" + b"\x2a\x7d" * 60,
    }


def _names() -> dict[str, bytes]:
    return {
        "no model": _with(model_name=""),
        "a path as a model": _with(model_name="../same"),
        "a command as a model": _with(model_name="same; shutdown sessions"),
        "a model with a line feed": _with(model_name="same\nset map"),
        "a model's name too long": _with(model_name="a" * 65),
        "a version that is no number": _with(model_version="latest"),
        "a negative version": _with(model_version="-1"),
        "a version too long": _with(model_version="1" * 10),
    }


def _shapes() -> dict[str, bytes]:
    shapes = {
        "a product of 2^62": [2**31, 2**31],
        "a product of 2^64": [2**32, 2**32],
        "a product of 2^62 * 4": [1, 2**62],
        "2^30 values": [2**30, 1],
        "2^63 - 1 values": [2**63 - 1],
        "a negative dimension": [-1],
        "the lowest dimension": [-(2**63)],
        "more than 64 dimensions": [1] * 65,
        "two values where one came": [2],
        "no value where one came": [0],
    }
    made = {f"raw, {name}": _raw(b"\0" * 4, shape=shape) for name, shape in shapes.items()}
    typed = {
        f"typed, {name}": _typed(Contents(fp32_contents=[1.0]), shape=shape)
        for name, shape in shapes.items()
    }
    return {**made, **typed}


def _contents() -> dict[str, bytes]:
    return {
        "neither": Request(model_name=SAME, inputs=[_one()]).SerializeToString(),
        "both": _raw(b"\0" * 4, contents=Contents(fp32_contents=[1.0])),
        "raw, three bytes": _raw(b"\0" * 3),
        "raw, nothing": _raw(b""),
        "raw without an input": _with(inputs=[]),
        "raw for more inputs": _with(raw_input_contents=[b"\0" * 4] * 2),
        "raw for fewer inputs": _with(inputs=[_one(), _one("FP64")]),
        "typed, two kinds": _typed(Contents(fp32_contents=[1.0], fp64_contents=[1.0])),
        "typed, another kind": _typed(Contents(int_contents=[1])),
        "typed, 16-bit float": _typed(Contents(fp32_contents=[1.0]), "FP16"),
        "typed, INT8 of 128": _typed(Contents(int_contents=[128]), "INT8"),
        "typed, INT16 of -32769": _typed(Contents(int_contents=[-32769]), "INT16"),
        "typed, UINT8 of 256": _typed(Contents(uint_contents=[256]), "UINT8"),
        "typed, UINT16 of 65536": _typed(Contents(uint_contents=[65536]), "UINT16"),
        "typed, BOOL of 2": _packed("BOOL", b"\x0a\x01\x02"),
        "typed, INT32 of 2^32": _packed("INT32", b"\x12\x05\x80\x80\x80\x80\x10"),
        "typed, half a float": _packed("FP32", b"\x32\x03\0\0\0"),
        "typed, half a number": _packed("INT64", b"\x1a\x01\x80"),
        "BYTES, a length beyond": _raw(b"\xff\xff\xff\xff", datatype="BYTES"),
        "BYTES, too few": _raw(b"\0" * 4, datatype="BYTES", shape=[2]),
        "BYTES, too many": _raw(b"\0" * 8, datatype="BYTES"),
        "BYTES, half a length": _raw(b"\0" * 3, datatype="BYTES"),
    }


def _packed(datatype: str, contents: bytes) -> bytes:
    """A request whose contents are these bytes: a tensor of one value has them as its field 5."""
    tensor = _one(datatype).SerializeToString() + b"\x2a" + bytes([len(contents)]) + contents
    request = Request(model_name=SAME).SerializeToString()
    return request + b"\x2a" + bytes([len(tensor)]) + tensor


def _tensors() -> dict[str, bytes]:
    four = [b"\0" * 4]
    return {
        "an input without a name": _with(inputs=[Tensor(datatype="FP32", shape=[1])]),
        "an input without a datatype": _with(inputs=[Tensor(name="x_FP32", shape=[1])]),
        "a datatype that is unknown": _with(inputs=[Tensor(name="x", datatype="FP128", shape=[1])]),
        "an input twice": _with(inputs=[_one(), _one()], raw_input_contents=four * 2),
        "too many inputs": _with(
            inputs=[Tensor(name=f"x{n}", datatype="FP32", shape=[1]) for n in range(1025)],
            raw_input_contents=four * 1025,
        ),
        "too many outputs": _with(outputs=[Output(name=f"y{n}") for n in range(1025)]),
        "an output without a name": _with(outputs=[Output()]),
    }


def _options() -> dict[str, bytes]:
    text, number = {"string_param": "a"}, {"int64_param": 1}
    shared = _parameters(shared_memory_region=text)
    classes = Output(name="y_BYTES", parameters=_parameters(classification=number))
    return {
        "shared memory of an input": _with(inputs=[_one(parameters=shared)]),
        "shared memory of an output": _with(outputs=[Output(name="y_FP32", parameters=shared)]),
        "a classification": _with(outputs=[classes]),
        "a negative priority": _with(parameters=_parameters(priority={"int64_param": -1})),
        "a priority that is a text": _with(parameters=_parameters(priority=text)),
        "a timeout that is a float": _with(parameters=_parameters(timeout={"double_param": 1.0})),
        "a sequence_start that is a number": _with(parameters=_parameters(sequence_start=number)),
        "a sequence_id too long": _with(
            parameters=_parameters(sequence_id={"string_param": "a" * 129})
        ),
        "a parameter without a value": _with(parameters=_parameters(any={})),
        "a parameter without a key": GOOD + b"\x22\x04\x12\x02\x08\x01",
        "a parameter twice": GOOD + b"\x22\x07\x0a\x01a\x12\x02\x08\x01" * 2,
        "a parameter with two values": GOOD + b"\x22\x09\x0a\x01a\x12\x04\x08\x01\x10\x01",
        "too many parameters": _with(
            parameters=_parameters(**{f"p{n}": number for n in range(1025)})
        ),
    }
