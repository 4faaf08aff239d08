"""Open the model of a package's version folder, by the class that its `runtime.json` names."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

FILE = "runtime.json"
PREFIX = "lockgate_runtime."
"""The name of this folder inside a package, and of its modules in `runtime.json`."""
CORE = ("__init__", "triton_model", "package", "errors")

_opened = count()


class RuntimeModel(Protocol):
    """A package's model: made by its class's `load(version_dir, settings)`, called on one request's
    inputs, or on several at once by `answer`, which returns a bad request's ValueError."""

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]: ...

    def answer(
        self, requests: Sequence[Mapping[str, np.ndarray]]
    ) -> Sequence[dict[str, np.ndarray] | ValueError]: ...


def open_model(version_dir: Path, settings: Mapping[str, str] | None = None) -> RuntimeModel:
    """The model of the version folder, made by the class that `runtime.json` there names.

    A class of `lockgate_runtime` is this package's own; any other lies in a module inside
    `version_dir`. `settings` are the parameters of config.pbtxt. Raises ValueError for a class that
    is not there, OSError for files that are not, and whatever the class raises.
    """
    folder = Path(version_dir).resolve()
    target = json.loads((folder / FILE).read_text(encoding="utf-8"))["_target_"]
    module_name, _, class_name = target.rpartition(".")
    module = _module(module_name, folder)
    if not hasattr(module, class_name):
        raise ValueError(f"{folder / FILE} names {target}; {module_name} has no {class_name!r}")
    model: Any = getattr(module, class_name).load(folder, settings)
    return model


def runtime_files(target: str) -> tuple[Path, ...]:
    """The files of this folder that a package needs for the runtime class `target`, sorted.

    Those that every package has, the target's module where it is one of ours, and what these
    import. Raises ValueError for a module of `lockgate_runtime` that is not there.
    """
    names = list(CORE)
    if target.startswith(PREFIX):
        names.append(target.removeprefix(PREFIX).rpartition(".")[0])
    found: dict[str, Path] = {}
    while names:
        name = names.pop()
        path = Path(__file__).with_name(f"{name}.py")
        if not path.is_file():
            raise ValueError(f"{target}: the runtime has no module {name!r}")
        if name not in found:
            found[name] = path
            names += _relative_imports(path)
    return tuple(sorted(found.values()))


def _relative_imports(path: Path) -> list[str]:
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            found += [node.module] if node.module else [alias.name for alias in node.names]
    return found


def _module(name: str, folder: Path) -> ModuleType:
    """A module of this package, or one inside `folder`.

    The latter is imported anew each time, under a name of its own: two versions in one process, or
    a folder that was written again, do not share code. It leaves no bytecode in the folder.
    """
    if f"{name}.".startswith(PREFIX):
        return import_module(f".{name.removeprefix(PREFIX)}", __package__)
    place = folder.joinpath(*name.split("."))
    if not (place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()):
        raise ValueError(f"{folder / FILE} names the module {name!r}, which {folder} does not hold")
    # A task's own code imports lockgate_runtime, which has this name inside a package alone.
    sys.modules.setdefault(PREFIX.rstrip("."), sys.modules[str(__package__)])
    root = ModuleType(f"_lockgate_version_{next(_opened)}")
    root.__path__ = [str(folder)]
    sys.modules[root.__name__] = root
    wrote_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        return import_module(f"{root.__name__}.{name}")
    finally:
        sys.dont_write_bytecode = wrote_bytecode
