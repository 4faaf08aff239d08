"""Plug-ins by Hydra's convention: a mapping with `_target_` names what is made of its other keys.

A target is a frozen dataclass (its fields are the keys, checked by type), or any other class or
function (its signature is checked), Lockgate's own or anybody's: `torch.optim.SGD`, `digits.Net`.
A value that is such a mapping itself is made first. `_partial_: true` gives a functools.partial.
See https://hydra.cc/docs/advanced/instantiate_objects/overview/
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

from conf.errors import ConfigError
from conf.names import nearest
from conf.schema import TARGET, SchemaError, build_dataclass, plain_values

PARTIAL = "_partial_"
OWN_PACKAGES = ("conf", "hpc", "kernels", "serving")
"""Lockgate's own packages: their targets import neither torch nor DeepSpeed until they are used."""


def make_plugin(node: object, key: str, *arguments: Any, **provided: Any) -> Any:
    """Make what the mapping `node` at config key `key` names, of its other keys.

    `arguments` come first and `provided` beside the keys: what the caller knows and a YAML cannot,
    such as parameters or vocabulary sizes. Raises `ConfigError` for a target that is not there, a
    key it does not take, one that is missing, and a value it refuses.
    """
    values = dict(plain_values(node, key))
    target = find_target(values.pop(TARGET, None), key)
    delayed = bool(values.pop(PARTIAL, False))
    if is_dataclass(target) and isinstance(target, type):
        try:
            return build_dataclass(target, {**values, **provided}, key, plugins=True)
        except SchemaError as error:
            raise ConfigError(str(error)) from None
    made = {name: _made(value, f"{key}.{name}") for name, value in values.items()}
    check_signature(target, key, {**made, **provided}, arguments, complete=not delayed)
    if delayed:
        return partial(target, *arguments, **made, **provided)
    try:
        return target(*arguments, **made, **provided)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key}: {target_name(target)} refused its settings: {error}") from error


def find_target(name: object, key: str) -> Callable[..., Any]:
    """The class or function at the dotted path `name`; imports its module.

    Raises `ConfigError` with the nearest names when there is none.
    """
    place = f"{key}.{TARGET}"
    if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f"{place}: {name!r} is not a dotted path such as package.module.Class")
    module, rest = _deepest_module(name, place)
    found: Any = module
    for part in rest:
        if not hasattr(found, part):
            options = [one for one in dir(found) if not one.startswith("_")]
            if isinstance(found, ModuleType):
                options += _submodules(found)
            where = getattr(found, "__name__", type(found).__name__)
            raise ConfigError(f"{place}={name}: {where} has no {part!r}. {nearest(part, options)}")
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(f"{place}={name} is {type(found).__name__}, not a class or a function")
    return found


def check_signature(
    target: Callable[..., Any],
    key: str,
    named: Mapping[str, Any],
    arguments: tuple[Any, ...] = (),
    complete: bool = True,
) -> None:
    """Raise `ConfigError` for a key that `target` does not take, or (`complete`) one it misses."""
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):  # a builtin says nothing about itself; the call will
        return
    parameters = signature.parameters.values()
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)
    names = [
        one.name for one in parameters if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
    ]
    for name in named:
        if name not in names and not takes_any:
            raise ConfigError(
                f"{key}.{name}: {target_name(target)} takes no such key. {nearest(name, names)}"
            )
    bind = signature.bind if complete else signature.bind_partial
    try:
        bind(*arguments, **named)
    except TypeError as error:
        raise ConfigError(f"{key}: {target_name(target)}: {error}") from None


def targets(node: object, key: str) -> Iterator[tuple[str, str]]:
    """(config key, target) of `node` and of everything inside it."""
    if isinstance(node, Mapping):
        if isinstance(node.get(TARGET), str):
            yield key, node[TARGET]
        for name, value in node.items():
            yield from targets(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from targets(value, f"{key}[{index}]")


def is_own(target: str) -> bool:
    """True for a target of Lockgate's own packages: it imports nothing heavy until it is used."""
    return target.partition(".")[0] in OWN_PACKAGES


def target_name(target: Callable[..., Any]) -> str:
    """`package.module.Class` of a class or function."""
    return f"{target.__module__}.{getattr(target, '__qualname__', type(target).__name__)}"


def _made(value: Any, key: str) -> Any:
    if isinstance(value, Mapping):
        if TARGET in value:
            return make_plugin(value, key)
        return {name: _made(item, f"{key}.{name}") for name, item in value.items()}
    if isinstance(value, list):
        return [_made(item, f"{key}[{index}]") for index, item in enumerate(value)]
    return value


def _deepest_module(name: str, place: str) -> tuple[ModuleType, list[str]]:
    """The longest prefix of `name` that is a module, and the attributes after it."""
    parts = name.split(".")
    module = _imported(parts[0], name, place)
    if module is None:
        tops = [one.name for one in pkgutil.iter_modules() if not one.name.startswith("_")]
        raise ConfigError(
            f"{place}={name}: there is no package {parts[0]!r}. {nearest(parts[0], tops)}"
        )
    for count in range(2, len(parts) + 1):
        deeper = _imported(".".join(parts[:count]), name, place)
        if deeper is None:
            return module, parts[count - 1 :]
        module = deeper
    raise ConfigError(f"{place}={name} is a module; name a class or a function in it")


def _imported(module: str, name: str, place: str) -> ModuleType | None:
    """The module, or None where there is none. An error inside it is the target's own fault."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name == module or module.startswith(f"{error.name}."):
            return None
        raise ConfigError(f"{place}={name}: importing {module} failed: {error}") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{place}={name}: importing {module} failed: {reason}") from error


def _submodules(module: ModuleType) -> list[str]:
    return [one.name for one in pkgutil.iter_modules(getattr(module, "__path__", []))]
