"""Make frozen dataclasses of parsed JSON or YAML, strictly; what does not fit gets a sentence."""

from __future__ import annotations

import math
import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal


class SchemaError(ValueError):
    """A value is not what its place asks for; the message says where and what was expected."""


def build(kind: Any, value: object, where: str = "") -> Any:
    """Make a `kind` (dataclass, tuple, dict, Literal, optional or plain type) of parsed JSON.

    Raises SchemaError naming the place, what was expected and what was found. A number without
    a fraction is a valid float; nothing else is converted.
    """
    if is_dataclass(kind):
        return _build_dataclass(typing.cast(type, kind), value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        items = _expect(value, list, "a list", where)
        return tuple(build(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(items))
    if origin is dict:
        items = _expect(value, dict, "an object", where)
        return {key: build(arguments[1], item, _join(where, key)) for key, item in items.items()}
    if origin is Literal:
        if value not in arguments:
            raise SchemaError(f"{where} is {value!r}, not one of {', '.join(arguments)}")
        return value
    if origin is types.UnionType:
        present = next(option for option in arguments if option is not types.NoneType)
        return None if value is None else build(present, value, where)
    if kind is float and type(value) in (int, float):
        number = float(typing.cast(float, value))
        if not math.isfinite(number):
            raise SchemaError(f"{where} is {number}, not a finite number")
        return number
    return _expect(value, kind, f"of type {kind.__name__}", where)


def _build_dataclass(kind: type, value: object, where: str) -> Any:
    content = _expect(value, dict, "an object", where)
    known = {field.name: field for field in fields(kind)}
    for key in content:
        if key not in known:
            raise SchemaError(f"{_join(where, key)} is unknown here; known: {', '.join(known)}")
    hints = typing.get_type_hints(kind)
    for name, field in known.items():
        if name not in content and field.default is MISSING and field.default_factory is MISSING:
            raise SchemaError(f"{_join(where, name)} is missing")
    return kind(
        **{key: build(hints[key], item, _join(where, key)) for key, item in content.items()}
    )


def _expect(value: object, kind: type, wanted: str, where: str) -> Any:
    if type(value) is not kind:
        raise SchemaError(f"{where or 'the whole'} is {_brief(value)}, not {wanted}")
    return value


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
