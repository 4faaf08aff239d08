"""Imports of a source tree that its snapshot would lack: modules that git ignores, or of elsewhere.

A job imports from its snapshot and from the installed packages. What an editable install adds from
another folder is code that an edit after submit would change.
"""

from __future__ import annotations

import ast
import re
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

SUFFIXES = (".py", *EXTENSION_SUFFIXES)
COMPILED = "__pycache__"
INSTALLED = ("site-packages", "dist-packages")
IMPORT = re.compile(r"^\s*(?:from\s+[\w.]+\s+import|import\s+\w)", re.MULTILINE)
TARGET = re.compile(r"_target_:\s*['\"]?([A-Za-z_][\w.]*)")


def ignored_imports(root: Path, files: Sequence[str], ignored: Sequence[str]) -> list[str]:
    """The paths in `ignored` that some file imports, or names as a `_target_`, sorted.

    `files` would travel; of `ignored`, a name with a slash at its end is a whole folder.
    """
    modules = {_module(name): name for name in ignored if _may_be_module(name)}
    if not modules:
        return []
    # Few files name one of them at all; only those are parsed.
    words = re.compile("|".join({re.escape(one.rpartition(".")[2]) for one in modules}))
    naming = [name for name in files if words.search(_text(root, name))]
    used = {module for name in naming for module in imported_modules(root, name)}
    return sorted(
        path
        for module, path in modules.items()
        if any(one == module or one.startswith(f"{module}.") for one in used)
    )


def imports_from_elsewhere(root: Path, files: Sequence[str], own: Sequence[Path]) -> list[Path]:
    """Files and folders outside `root` from which its code imports, sorted.

    The installed packages, Python itself and `own`, folders whose code travels too, are none.
    """
    used = {one.partition(".")[0] for name in files for one in imported_modules(root, name)}
    used -= {PurePosixPath(name).parts[0].removesuffix(".py") for name in files}
    found = {place for name in used - set(sys.stdlib_module_names) if (place := _place(name))}
    return sorted(place for place in found if not _is_within(place, (root, *own)))


def imported_modules(root: Path, name: str) -> set[str]:
    """Dotted names of all that one file may import; empty for one that is no Python and no YAML."""
    text = _text(root, name)
    if not name.endswith(".py"):
        return set(TARGET.findall(text))
    if not IMPORT.search(text):
        return set()
    try:
        return set(_imports(ast.parse(text), PurePosixPath(name).parent.parts))
    except (SyntaxError, ValueError, RecursionError):  # the job will say so
        return set()


def _imports(tree: ast.AST, package: tuple[str, ...]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *([node.module] if node.module else [])))
            if base:
                yield base
            yield from (f"{base}.{alias.name}".lstrip(".") for alias in node.names)


def _text(root: Path, name: str) -> str:
    """Python and YAML; empty for any other file."""
    readable = name.endswith((".py", ".yaml", ".yml"))
    return (root / name).read_text(errors="replace") if readable else ""


def _may_be_module(name: str) -> bool:
    path = PurePosixPath(name)
    if path.name == COMPILED or not all(part.split(".")[0].isidentifier() for part in path.parts):
        return False
    return name.endswith("/") or name.endswith(SUFFIXES)


def _module(name: str) -> str:
    path = PurePosixPath(name)
    parts = [*path.parent.parts, path.name.split(".")[0]]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _place(name: str) -> Path | None:
    """The file or folder of a top-level module that is not installed; None for any other."""
    try:
        found = find_spec(name)
    except (ImportError, ValueError):  # __main__, and what an editable install lost
        return None
    places = [*(found.submodule_search_locations or ())] if found else []
    origin = places[0] if places else found.origin if found and found.has_location else None
    if origin is None:
        return None
    place = Path(origin).resolve()
    if any(part in INSTALLED for part in place.parts) or _is_within(place, _python()):
        return None
    return place


@cache
def _python() -> tuple[Path, ...]:
    return tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))


def _is_within(place: Path, folders: Sequence[Path]) -> bool:
    return any(place.is_relative_to(folder.resolve()) for folder in folders)
