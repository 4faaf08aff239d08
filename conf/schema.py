"""The one converter of plain values (YAML or JSON) to typed frozen dataclasses, strictly.

A mapping with `_target_` in the place of a plug-in becomes what it names (see `conf.plugin`).
Nothing is converted silently: a number without a fraction is a valid float and, where a person
typed it, as in steps=1e3, a valid int; and that is all.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from conf.errors import ConfigError
from conf.names import nearest

TARGET = "_target_"
T = TypeVar("T")


class SchemaError(ValueError):
    """A value is not of its place's type; the message has the place and the type expected."""


def from_config(kind: type[T], node: object, key: str) -> T:
    """`node` (an OmegaConf node or plain values at config key `key`) as a `kind`.

    Raises `ConfigError`, naming the key, for what does not fit or cannot be resolved.
    """
    try:
        return typing.cast(T, build(kind, plain_values(node, key), key, plugins=True))
    except SchemaError as error:
        raise ConfigError(str(error)) from None


def plain_values(node: object, key: str = "") -> Any:
    """`node` without OmegaConf, every interpolation resolved. Raises `ConfigError`."""
    from omegaconf import OmegaConf  # not needed where JSON is read
    from omegaconf.errors import OmegaConfBaseException

    if not OmegaConf.is_config(node):
        return node
    try:
        return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)  # type: ignore[arg-type]
    except OmegaConfBaseException as error:
        place = getattr(error, "full_key", None) or ""
        if place != key and not place.startswith(f"{key}."):  # `node` is a tree of its own
            place = _join(key, place)
        raise ConfigError(f"{place}: {str(error).strip().splitlines()[0]}") from None


def build(kind: Any, value: object, where: str = "", plugins: bool = False) -> Any:
    """Make a `kind` of plain values: dataclass, tuple, list, dict, Literal, union, Path or scalar.

    With `plugins` the values are a person's own config: there alone is a mapping with `_target_`
    made, since it imports and calls what it names, and 1e3 taken for an int. Raises SchemaError
    naming the place, what was expected and what was found.
    """
    if kind is Any:
        return value
    if plugins and isinstance(value, Mapping) and TARGET in value and kind is not dict:
        from conf.plugin import make_plugin

        return make_plugin(value, where)
    if is_dataclass(kind):
        return build_dataclass(typing.cast(type, kind), value, where, plugins)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return _tuple(arguments, _expect(value, list, "a list", where), where, plugins)
    if origin is list:
        items = _expect(value, list, "a list", where)
        return [build(arguments[0], one, f"{where}[{i}]", plugins) for i, one in enumerate(items)]
    if origin in (dict, Mapping):
        items = _expect(value, dict, "an object", where)
        return {
            key: build(arguments[1], one, _join(where, key), plugins) for key, one in items.items()
        }
    if origin is Literal:
        if value not in arguments:
            options = ", ".join(map(str, arguments))
            raise SchemaError(f"{where} is {value!r}, not one of {options}")
        return value
    if origin in (types.UnionType, typing.Union):
        return _union(arguments, value, where, plugins)
    if kind is Path:
        return Path(_expect(value, str, "a path", where))
    if kind is float and type(value) in (int, float):
        number = float(typing.cast(float, value))
        if not math.isfinite(number):
            raise SchemaError(f"{where} is {number}, not a finite number")
        return number
    if kind is int and plugins and type(value) is float and value.is_integer():
        return int(value)
    if kind in (bool, int, float, str, dict, list):
        return _expect(value, kind, f"of type {kind.__name__}", where)
    raise SchemaError(f"{where} is {_brief(value)}; it must be a mapping with {TARGET}")


def build_dataclass(kind: type, value: object, where: str, plugins: bool = False) -> Any:
    """Make the dataclass `kind` of a mapping; a ValueError of its own checks names the key."""
    content = dict(_expect(value, dict, "an object", where))
    known: dict[str, Field[Any]] = {field.name: field for field in fields(kind) if field.init}
    for key in content:
        if key not in known:
            raise SchemaError(
                f"{_join(where, key)} is unknown here. {nearest(str(key), known)}"
                f" (known: {', '.join(map(_with_default, known.values()))})"
            )
    for name, field in known.items():
        if name not in content and field.default is MISSING and field.default_factory is MISSING:
            raise SchemaError(f"{_join(where, name)} is missing")
    hints = typing.get_type_hints(kind)
    made = {key: build(hints[key], one, _join(where, key), plugins) for key, one in content.items()}
    try:
        return kind(**made)
    except (SchemaError, ConfigError):
        raise
    except ValueError as error:
        name = str(error).partition("=")[0].partition(" ")[0].partition(".")[0].rstrip(":")
        place = _join(where, str(error)) if name in known else f"{where}: {error}"
        raise SchemaError(place) from None


def _tuple(
    arguments: tuple[Any, ...], items: list[Any], where: str, plugins: bool
) -> tuple[Any, ...]:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(
            build(arguments[0], one, f"{where}[{i}]", plugins) for i, one in enumerate(items)
        )
    if len(items) != len(arguments):
        raise SchemaError(f"{where} is {_brief(items)}, not a list of {len(arguments)}")
    pairs = zip(arguments, items, strict=True)
    return tuple(build(kind, one, f"{where}[{i}]", plugins) for i, (kind, one) in enumerate(pairs))


def _union(options: tuple[Any, ...], value: object, where: str, plugins: bool) -> Any:
    """The first option that `value` fits, None first."""
    if value is None and types.NoneType in options:
        return None
    present = [option for option in options if option is not types.NoneType]
    problems = []
    for option in present:
        try:
            return build(option, value, where, plugins)
        except SchemaError as error:
            problems.append(str(error))
    raise SchemaError("; or ".join(dict.fromkeys(problems)))


def _with_default(field: Field[Any]) -> str:
    if field.default is MISSING:
        return field.name
    return f"{field.name}={field.default!r}"


def _expect(value: object, kind: type, wanted: str, where: str) -> Any:
    if type(value) is not kind:
        raise SchemaError(f"{where or 'the whole'} is {_brief(value)}, not {wanted}")
    return value


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where and key else where or key
