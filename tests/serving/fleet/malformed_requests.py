"""Malformed inference requests, one of each kind, for a model that takes every datatype as `x_*`.

`requests()` has those that are wrong whatever the model is; a service must answer each with 4xx.
`of_death()` has the ten forms of a request whose shape overflows: they ended Triton 2.51.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import Any

from serving.triton.kserve import HEADER_LENGTH


@dataclass(frozen=True)
class Malformed:
    """One request: the mistake, the body and the headers that it needs."""

    mistake: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def requests() -> list[Malformed]:
    """At least one request for every kind of mistake."""
    return [*_documents(), *_tensors(), *_numbers(), *_members(), *_binary()]


def of_death() -> list[Malformed]:
    """Shapes whose product overflows, or asks for far more than the body carries."""
    shapes = [
        [2147483648, 2147483648],
        [4294967296, 1073741824],
        [1, 4611686018427387904],
        [1073741824, 1],
        [9223372036854775807],
    ]
    by_json = [
        Malformed(f"JSON {shape}", _document([_tensor("FP32", shape, [1.0])])) for shape in shapes
    ]
    return [*by_json, *(_framed(f"binary {shape}", "FP32", shape, b"\0" * 4) for shape in shapes)]


def _document(inputs: Any, **members: Any) -> bytes:
    return json.dumps({"inputs": inputs, **members}).encode()


def _tensor(datatype: str, shape: Any, data: Any, **members: Any) -> dict[str, Any]:
    return {
        "name": f"x_{datatype}", "datatype": datatype, "shape": shape, "data": data, **members
    }  # fmt: skip


def _framed(
    mistake: str, datatype: str, shape: Any, data: bytes, *, size: Any = None, header: Any = None
) -> Malformed:
    tensor = {
        "name": f"x_{datatype}", "datatype": datatype, "shape": shape,
        "parameters": {"binary_data_size": len(data) if size is None else size},
    }  # fmt: skip
    text = _document([tensor])
    length = len(text) if header is None else header
    return Malformed(mistake, text + data, {HEADER_LENGTH: str(length)})


def _documents() -> list[Malformed]:
    good = _document([_tensor("FP32", [1], [1.0])])
    texts = {
        "an empty body": b"",
        "no JSON": b"inputs=1",
        "JSON cut off": good[:-5],
        "text after the JSON": good + b"{}",
        "a list for the document": b"[" + good + b"]",
        "a number for the document": b"7",
        "null for the document": b"null",
        "no inputs": b"{}",
        "inputs is null": b'{"inputs":null}',
        "inputs is an object": b'{"inputs":{"name":"x_FP32"}}',
        "inputs is a text": b'{"inputs":"x_FP32"}',
        "an input is a number": b'{"inputs":[7]}',
        "an input is null": b'{"inputs":[null]}',
        "not UTF-8": good.replace(b"x_FP32", b"x_\xff\xfe"),
        "a zero byte": good.replace(b"x_FP32", b"x_\0FP32"),
        "a comma too many": good.replace(b"[1.0]", b"[1.0,]"),
        "single quotes": good.replace(b'"', b"'"),
        "nested 100,000 deep": b'{"inputs":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "objects 100,000 deep": b'{"inputs":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
        "data nested 100,000 deep": good.replace(b"[1.0]", b"[" * 100_000 + b"1" + b"]" * 100_000),
        "an unknown key nested 100,000 deep": b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "a key twice": good.replace(b'"shape": [1]', b'"shape":[1],"shape":[4294967296]'),
        "a key twice, once escaped": good.replace(b'"shape"', b'"sh\\u0061pe":[9],"shape"'),
        "a bad escape": good.replace(b"x_FP32", b"x_FP32\\q"),
        "half a surrogate": good.replace(b"x_FP32", b"x_\\ud800"),
        "a bad unicode escape": good.replace(b"x_FP32", b"x_\\uZZZZ"),
    }
    return [Malformed(mistake, text) for mistake, text in texts.items()]


def _tensors() -> list[Malformed]:
    whole = _tensor("FP32", [1], [1.0])
    less = [{key: one for key, one in whole.items() if key != left} for left in whole]
    inputs = {
        **{f"no {left}": one for left, one in zip(whole, less, strict=True)},
        "name is a number": {**whole, "name": 7},
        "name is empty": {**whole, "name": ""},
        "name of 300 letters": {**whole, "name": "x" * 300},
        "datatype is a number": {**whole, "datatype": 7},
        "datatype is unknown": {**whole, "datatype": "FP33"},
        "datatype in small letters": {**whole, "datatype": "fp32"},
        "shape is null": {**whole, "shape": None},
        "shape is a number": {**whole, "shape": 1},
        "shape is a text": {**whole, "shape": "[1]"},
        "shape has a text": {**whole, "shape": ["1"]},
        "shape has null": {**whole, "shape": [None]},
        "shape has a fraction": {**whole, "shape": [1.5]},
        "shape has true": {**whole, "shape": [True]},
        "shape is nested": {**whole, "shape": [[1]]},
        "shape is negative": {**whole, "shape": [-1]},
        "shape is negative twice": {**whole, "shape": [-1, -1]},
        "shape has 2^64": {**whole, "shape": [2**64]},
        "shape has 1e400": {**whole, "shape": [10**400]},
        "shape of 1000 dimensions": {**whole, "shape": [1] * 1000},
        "shape is more than the data": {**whole, "shape": [2]},
        "shape is less than the data": {**whole, "shape": [1], "data": [1.0, 2.0]},
        "zero rows with data": {**whole, "shape": [0], "data": [1.0]},
        "zero rows of 2^62 columns": {**whole, "shape": [0, 2**62, 4], "data": []},
        "data is null": {**whole, "data": None},
        "data is a number": {**whole, "data": 1.0},
        "data is a text": {**whole, "data": "1.0"},
        "data is an object": {**whole, "data": {"0": 1.0}},
        "data has an object": {**whole, "data": [{"a": 1}]},
        "parameters is a list": {**whole, "parameters": [1]},
        "parameters is a text": {**whole, "parameters": "a"},
        "a parameter is a list": {**whole, "parameters": {"a": [1]}},
        "shared memory that is not there": {
            **less[3], "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 4},
        },
        "binary data without a header": {**less[3], "parameters": {"binary_data_size": 4}},
        "binary data beside data": {**whole, "parameters": {"binary_data_size": 4}},
    }  # fmt: skip
    made = [Malformed(mistake, _document([one])) for mistake, one in inputs.items()]
    return [*made, Malformed("an input twice", _document([whole, whole]))]


def _numbers() -> list[Malformed]:
    data: dict[str, tuple[str, Any]] = {
        "FP32 has null": ("FP32", None),
        "FP32 has a text": ("FP32", "1.0"),
        "FP32 has true": ("FP32", True),
        "INT32 has a fraction": ("INT32", 1.5),
        "INT32 has a text": ("INT32", "1"),
        "BOOL has a number": ("BOOL", 2),
        "BOOL has a text": ("BOOL", "true"),
        "BYTES has a number": ("BYTES", 1),
        "BYTES has null": ("BYTES", None),
        "BYTES has true": ("BYTES", True),
        "FP16 as JSON": ("FP16", 1.0),
        "BF16 as JSON": ("BF16", 1.0),
        "UINT64 is negative": ("UINT64", -1),
    }
    for bits in (8, 16, 32, 64):
        data[f"INT{bits} too large"] = (f"INT{bits}", 2 ** (bits - 1))
        data[f"INT{bits} too small"] = (f"INT{bits}", -(2 ** (bits - 1)) - 1)
        data[f"UINT{bits} too large"] = (f"UINT{bits}", 2**bits)
        data[f"UINT{bits} below zero"] = (f"UINT{bits}", -1)
    made = [
        Malformed(mistake, _document([_tensor(datatype, [1], [value])]))
        for mistake, (datatype, value) in data.items()
    ]
    texts = {
        "a number too large for FP64": ("FP64", b"1e999"),
        "a number too large for FP32": ("FP32", b"1e39"),
        "a number with a leading zero": ("FP32", b"01"),
        "a number with a plus": ("FP32", b"+1"),
        "a number that ends in a dot": ("FP32", b"1."),
        "a number without an exponent": ("FP32", b"1e"),
        "a hexadecimal number": ("INT32", b"0x1"),
        "a bare word": ("FP32", b"one"),
        "an integer of 1000 digits": ("INT64", b"1" * 1000),
        "an unsigned integer of 1000 digits": ("UINT64", b"1" * 1000),
        "an integer with an exponent": ("INT32", b"1e3"),
    }
    for mistake, (datatype, text) in texts.items():
        body = _document([_tensor(datatype, [1], ["#"])]).replace(b'"#"', text)
        made.append(Malformed(mistake, body))
    return made


def _members() -> list[Malformed]:
    good = [_tensor("FP32", [1], [1.0])]
    members: dict[str, dict[str, Any]] = {
        "outputs is an object": {"outputs": {"name": "y_FP32"}},
        "outputs is null": {"outputs": None},
        "an output is a text": {"outputs": ["y_FP32"]},
        "an output without a name": {"outputs": [{}]},
        "an output's name is a number": {"outputs": [{"name": 1}]},
        "an output's parameters are a list": {"outputs": [{"name": "y_FP32", "parameters": [1]}]},
        "binary_data is a text": _output(binary_data="yes"),
        "binary_data is a number": _output(binary_data=1),
        "classification is a text": _output(classification="3"),
        "classification is below zero": _output(classification=-1),
        "an output into shared memory": _output(
            shared_memory_region="r", shared_memory_byte_size=4
        ),
        "an unknown output": {"outputs": [{"name": "nothing"}]},
        "id is an object": {"id": {}},
        "id is a list": {"id": [1]},
        "id is a fraction": {"id": 1.5},
        "id is null": {"id": None},
        "parameters is a list": {"parameters": [1]},
        "parameters is a number": {"parameters": 1},
        "a parameter is an object": {"parameters": {"a": {"b": 1}}},
        "a parameter is a list": {"parameters": {"a": [1]}},
        "a parameter is null": {"parameters": {"a": None}},
        "priority is a text": {"parameters": {"priority": "high"}},
        "priority is below zero": {"parameters": {"priority": -1}},
        "timeout is a text": {"parameters": {"timeout": "soon"}},
        "timeout is below zero": {"parameters": {"timeout": -1}},
        "sequence_id is an object": {"parameters": {"sequence_id": {}}},
        "sequence_id is a fraction": {"parameters": {"sequence_id": 1.5}},
        "sequence_start is a text": {"parameters": {"sequence_start": "yes"}},
        "binary_data_output is a text": {"parameters": {"binary_data_output": "yes"}},
        "a parameter of Triton's own": {"parameters": {"triton_enable_empty_final_response": 7}},
    }
    return [Malformed(mistake, _document(good, **one)) for mistake, one in members.items()]


def _output(**parameters: Any) -> dict[str, Any]:
    return {"outputs": [{"name": "y_FP32", "parameters": parameters}]}


def _binary() -> list[Malformed]:
    four = b"\0\0\0\0"
    made = [
        _framed("binary: fewer bytes than said", "FP32", [1], four, size=8),
        _framed("binary: more bytes than said", "FP32", [1], four * 2, size=4),
        _framed("binary: a size that is not the shape's", "FP32", [2], four),
        _framed("binary: a size below zero", "FP32", [1], four, size=-4),
        _framed("binary: a size of 2^63", "FP32", [1], four, size=2**63),
        _framed("binary: a size of 2^64 + 4", "FP32", [1], four, size=2**64 + 4),
        _framed("binary: a size as text", "FP32", [1], four, size="4"),
        _framed("binary: a size as fraction", "FP32", [1], four, size=4.5),
        _framed("binary: a size that is null", "FP32", [1], four, size=[]),
        _framed("binary: no rows but bytes", "FP32", [0], four),
        _framed("binary: rows without bytes", "FP32", [1], b""),
        _framed("binary: negative shape", "FP32", [-1], four),
        _framed("binary: the header is longer than the body", "FP32", [1], four, header=10**6),
        _framed("binary: the header is cut off", "FP32", [1], four, header=20),
        _framed("binary: the header takes in the data", "FP32", [1], four, header=len(four) + 100),
        _framed("binary: the header's length is a text", "FP32", [1], four, header="long"),
        _framed("binary: the header's length is below zero", "FP32", [1], four, header=-1),
        _framed("binary: the header's length is 2^64", "FP32", [1], four, header=2**64),
        _framed("binary: BYTES whose length is cut off", "BYTES", [1], b"\1\0"),
        _framed("binary: BYTES cut off", "BYTES", [1], struct.pack("<I", 9) + b"abc"),
        _framed("binary: BYTES of 2^32 - 1", "BYTES", [1], struct.pack("<I", 2**32 - 1) + b"abc"),
        _framed("binary: fewer BYTES than rows", "BYTES", [2], struct.pack("<I", 3) + b"abc"),
        _framed("binary: more BYTES than rows", "BYTES", [1], (struct.pack("<I", 1) + b"a") * 2),
        _framed("binary: unknown datatype", "FP33", [1], four),
        _framed("binary: zero rows of 2^62 columns", "FP32", [0, 2**62, 4], b""),
    ]  # fmt: skip
    return made
