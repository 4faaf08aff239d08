"""The plain torch code of an operator as a text that runs by itself, for records of other tools."""

import ast
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, TypeGuard

from kernels.backend import KernelError

PLAIN = (int, bool, str, tuple, type(None))


def reference_code(function: Callable[..., Any], arguments: tuple[str, ...]) -> str:
    """A module whose `run(*arguments)` does what `function` does, with all that it uses of ours.

    Raises KernelError for a function that uses a value of its closure which has no such text.
    """
    parts: dict[str, str] = {}
    called = ", ".join(arguments)
    if _is_ours(function):
        node = _definition(function)
        if isinstance(node, ast.Lambda):
            _add_used(function, parts)
            own = ", ".join(one.arg for one in node.args.args)
            body = f"def run({own}):\n    return {ast.unparse(node.body)}"
        else:
            _add_function(function, parts)
            body = f"def run({called}):\n    return {function.__name__}({called})"
    else:  # torch's own
        parts["reference"] = f"from {function.__module__} import {function.__name__} as reference"
        body = f"def run({called}):\n    return reference({called})"
    lines = ["from __future__ import annotations", *sorted(parts.values(), key=_imports_first)]
    return "\n\n".join([*lines, body]) + "\n"


def _imports_first(text: str) -> tuple[int, str]:
    if text.startswith(("import ", "from ")):
        return 0, text
    return (3 if text.startswith("def ") else 2 if text.startswith(("@", "class ")) else 1), text


def _is_ours(function: object) -> TypeGuard[FunctionType]:
    return isinstance(function, FunctionType) and function.__module__.split(".")[0] == "kernels"


def _add_function(function: FunctionType, parts: dict[str, str]) -> None:
    node = _definition(function)
    assert isinstance(node, ast.FunctionDef)
    node.decorator_list = []
    parts[function.__name__] = ast.unparse(node)
    _add_used(function, parts)


def _add_used(function: FunctionType, parts: dict[str, str]) -> None:
    """Everything that the code of `function` names, but for builtins and its own arguments."""
    used = inspect.getclosurevars(function)
    _add_values({**used.globals, **used.nonlocals}, parts, function)


def _add_class(kind: type, parts: dict[str, str]) -> None:
    """A class of ours, such as the options of a loss, with what its body names."""
    module = sys.modules[kind.__module__]
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    node = next(
        one for one in tree.body if isinstance(one, ast.ClassDef) and one.name == kind.__name__
    )
    parts[kind.__name__] = ast.unparse(node)
    names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    _add_values({name: vars(module)[name] for name in names if name in vars(module)}, parts, kind)


def _add_values(values: dict[str, Any], parts: dict[str, str], function: Any) -> None:
    for name, value in values.items():
        if name in parts:
            continue
        if isinstance(value, ModuleType):
            parts[name] = f"import {value.__name__} as {name}"
        elif _is_ours(value):
            _add_function(value, parts)
        elif isinstance(value, float):  # an infinity has no literal
            parts[name] = f"{name} = float({repr(value)!r})"
        elif isinstance(value, PLAIN):
            parts[name] = f"{name} = {value!r}"
        elif isinstance(value, type) and value.__module__.split(".")[0] == "kernels":
            _add_class(value, parts)
        elif hasattr(value, "__qualname__") and not value.__module__.startswith("kernels"):
            parts[name] = f"from {value.__module__} import {value.__qualname__} as {name}"
        else:
            raise KernelError(
                f"{function.__qualname__} in {function.__module__} uses {name}, a "
                f"{type(value).__name__}, which a record cannot hold; make it a constant"
            )


def _definition(function: FunctionType) -> ast.FunctionDef | ast.Lambda:
    """The syntax of `function`, a lambda found by where its code stands in the line."""
    code = function.__code__
    source = Path(code.co_filename).read_text(encoding="utf-8")
    places = [place for place in code.co_positions() if place[0] and place[2]]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name == function.__name__:
            return node
        if isinstance(node, ast.Lambda) and function.__name__ == "<lambda>":
            begin, end = (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)
            own = [arg.arg for arg in node.args.args] == list(code.co_varnames[: code.co_argcount])
            if own and all(begin <= (line, column) < end for line, _, column, _ in places):
                return node
    raise KernelError(f"{function.__qualname__} is not in the source of {function.__module__}")
