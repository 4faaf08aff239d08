"""The table of faults in docs/ops.md: every row is held by a test that exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from conf import repo_root

_TEST = re.compile(r"`([a-z_/]+\.py)::(test_[a-z0-9_]+)`")
LEAST = 25
NAMED = (
    "killed at any", "unreachable", "hanging", "loses power", "full", "flipped byte",
    "does not load|fails to load", "answers wrong", "slow", "leaks", "crashes on the tenth",
    "dead.*stub", "reloaded|restarted", "Prometheus", "MLflow hangs", "two operators", "clocks",
    "stale lease",
)  # fmt: skip
"""Faults that issue 10 asks for, each as the table may call it."""


def rows() -> list[list[str]]:
    text = (repo_root() / "docs/ops.md").read_text()
    (section,) = re.findall(r"^## Faults, and how they end\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@cache
def functions_of(path: Path) -> frozenset[str]:
    return frozenset(
        node.name for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    )  # fmt: skip


def missing(found: list[list[str]]) -> list[str]:
    """Rows that name no test, or one that is not there."""
    wrong = []
    for row in found:
        named = _TEST.findall(row[-1])
        there = [
            (path := repo_root() / "tests/serving" / file).is_file() and name in functions_of(path)
            for file, name in named
        ]
        if len(row) != 5 or not named or not all(there):
            wrong.append(" | ".join(row))
    return wrong


def test_every_row_names_a_test_that_is_there():
    found = rows()
    assert len(found) >= LEAST and missing(found) == []
    assert len({row[0] for row in found}) == len(found), "no fault is counted twice"
    assert {row[3] for row in found} <= {"real", "simulated", "pure"}


@pytest.mark.parametrize("fault", NAMED)
def test_the_table_has_each_fault_that_was_asked_for(fault):
    assert [row for row in rows() if re.search(fault, row[0], re.I)], fault


def test_a_row_without_its_test_is_found():
    gone = ["a fault", "nothing", "done", "real", "`fleet/test_rollout.py::test_that_is_not_there`"]
    assert len(missing([gone, [*gone[:4], "none"], gone[1:]])) == 3
