"""One fact, one place: what both planes share is defined, spelled and written to disk once."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.house.tree import classes, name_of, python_files, string_literals, syntax

TRITON_DTYPE = re.compile(r"BOOL|U?INT(8|16|32|64)|[BF]P?F?(16|32|64)|BYTES")
TABLE = 4
"""A literal with as many names of dtypes is a table of them; fewer are a choice among them."""


def files_with(found: Iterable[tuple[Path, object]]) -> set[str]:
    return {name_of(path) for path, hit in found if hit}


def test_only_one_module_calls_fsync() -> None:
    calls = (
        (path, isinstance(node, ast.Attribute | ast.Name | ast.alias) and "fsync" in _last(node))
        for path in python_files()
        for node in ast.walk(syntax(path))
    )
    assert files_with(calls) == {"serving/artifact/durable.py"}


def test_tritons_dtypes_stand_in_one_table() -> None:
    tables = (
        (path, len(_dtypes(node)) >= TABLE)
        for path in python_files()
        for node in ast.walk(syntax(path))
        if isinstance(node, ast.Dict | ast.Tuple | ast.List | ast.Set)
    )
    assert files_with(tables) == {"serving/artifact/tensors.py"}


@pytest.mark.parametrize("name", ["candidate.json", "golden.json", "lineage.json"])
def test_a_files_name_stands_in_one_module(name: str) -> None:
    """As a value; sentences for people and docstrings may name it anywhere."""
    spelled = (
        (path, literal.value == name or re.fullmatch(rf"\S*/{name}", literal.value))
        for path in python_files()
        for literal in string_literals(path)
    )
    assert len(files_with(spelled)) == 1, files_with(spelled)


@pytest.mark.parametrize("name", ["Candidate", "Lineage", "GoldenExample", "TensorSpec"])
def test_a_class_of_the_contract_is_defined_in_serving_artifact(name: str) -> None:
    places = [place for found, place in classes() if found == name]
    assert len(places) == 1, places
    assert places[0].startswith("serving/artifact/")


def test_golden_examples_are_compared_in_one_module() -> None:
    """By the tolerances that they carry: no other module reads them."""
    readers = (
        (path, isinstance(node, ast.Attribute) and node.attr in ("atol", "rtol"))
        for path in python_files()
        for node in ast.walk(syntax(path))
        if name_of(path).startswith(("serving/", "scripts/"))  # the training plane sets them
    )
    assert files_with(readers) == {"serving/artifact/golden.py"}


def _last(node: ast.Attribute | ast.Name | ast.alias) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else node.name


def _dtypes(node: ast.Dict | ast.Tuple | ast.List | ast.Set) -> set[str]:
    parts = [*node.keys, *node.values] if isinstance(node, ast.Dict) else node.elts
    return {
        part.value
        for part in parts
        if isinstance(part, ast.Constant)
        and isinstance(part.value, str)
        and TRITON_DTYPE.fullmatch(part.value)
    }
