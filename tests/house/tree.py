"""The source tree as the tests of this folder read it: files, syntax trees, class names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

REPO = Path(__file__).parents[2]
PACKAGES = ("conf", "hpc", "kernels", "serving", "scripts")
TEMPLATES = REPO / "hpc" / "templates"
"""Files of a user's project, copied by `lockgate new`; no modules of Lockgate."""


@cache
def python_files() -> tuple[Path, ...]:
    """Lockgate's own modules."""
    found = (path for package in PACKAGES for path in (REPO / package).rglob("*.py"))
    return tuple(sorted(path for path in found if not path.is_relative_to(TEMPLATES)))


@cache
def syntax(path: Path) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def name_of(path: Path) -> str:
    """`serving/artifact/store.py`."""
    return path.relative_to(REPO).as_posix()


def public_definitions(path: Path) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef]:
    """The module itself, its public classes and functions, and the public methods of those."""
    inside: list[ast.Module | ast.ClassDef] = [syntax(path)]
    yield inside[0]
    while inside:
        for node in inside.pop().body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                yield node
                if isinstance(node, ast.ClassDef):
                    inside.append(node)


def classes() -> Iterator[tuple[str, str]]:
    """(name, `file:line`) of each public class, those inside functions too."""
    for path in python_files():
        for node in ast.walk(syntax(path)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield node.name, f"{name_of(path)}:{node.lineno}"


def string_literals(path: Path) -> Iterator[ast.Constant]:
    """Strings of the module that are values: docstrings and other bare strings are not."""
    bare = {node.value for node in ast.walk(syntax(path)) if isinstance(node, ast.Expr)}
    for node in ast.walk(syntax(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in bare:
            yield node
