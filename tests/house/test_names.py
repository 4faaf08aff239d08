"""Names: one meaning each, no task's name in generic code, docstrings that begin with the thing."""

from __future__ import annotations

import ast
import re
from collections import defaultdict

import pytest

from tests.house.tree import (
    PACKAGES,
    REPO,
    TEMPLATES,
    classes,
    name_of,
    public_definitions,
    python_files,
)

TASK_NAMES = re.compile(r"\b(flights|webster|lm)\b", re.IGNORECASE)
GENERIC = ("hpc", "serving", "kernels", "scripts")
NAMING_FILES: dict[str, str] = {}
"""Files of generic code that may name a task, each with the reason."""
DATA = (".csv", ".txt")  # samples in templates, and the lock files
RIDDLE = re.compile(r"(What|Which|Who|Whose|Where|How|Whether)\b")
VAGUE = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}


def test_generic_code_names_no_task() -> None:
    files = (
        path
        for folder in GENERIC
        for path in (REPO / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix not in DATA
    )
    found = {
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if TASK_NAMES.search(line) and name_of(path) not in NAMING_FILES
    }
    assert found == set()


def test_no_file_is_excused_that_names_no_task() -> None:
    assert [name for name in NAMING_FILES if not TASK_NAMES.search((REPO / name).read_text())] == []


def test_no_two_classes_have_one_name() -> None:
    places = defaultdict(list)
    for name, place in classes():
        places[name].append(place)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_no_docstring_opens_with_a_relative_clause() -> None:
    found = [
        f"{name_of(path)}:{getattr(node, 'lineno', 1)}: {text.splitlines()[0]}"
        for path in (*python_files(), *TEMPLATES.rglob("*.py"))
        for node in public_definitions(path)
        if (text := ast.get_docstring(node)) and RIDDLE.match(text)
    ]
    assert found == []


def test_every_module_has_a_docstring() -> None:
    assert [name_of(path) for path in python_files() if not ast.get_docstring(_tree(path))] == []


def test_no_file_is_called_utils() -> None:
    assert [name_of(path) for path in python_files() if path.stem in VAGUE] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_says_what_it_is_and_what_it_imports(package: str) -> None:
    """A sub-package that holds one kind and re-exports it stands under the rule of its parent."""
    folders = {path.parent for path in python_files() if name_of(path).startswith(package + "/")}
    wrong = []
    for folder in sorted(folders):
        text = (folder / "__init__.py").exists() and ast.get_docstring(
            _tree(folder / "__init__.py")
        )
        if not text or len(text.splitlines()) < 2 or "imports" not in text.lower():
            wrong.append(name_of(folder))
    assert wrong == []


def _tree(path):
    return next(public_definitions(path))
