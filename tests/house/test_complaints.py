"""docs/researcher.md: each complaint of the field has a test that is there, or is named as open."""

from __future__ import annotations

import ast
import re

import pytest

from tests.house.tree import REPO, syntax

GUIDE = REPO / "docs/researcher.md"
HEADING = "## What others' users complain of, and the test that answers it"
ROW = re.compile(
    r"^\| (?P<complaint>[^|]+) \| (?P<answer>[^|]+) \| (?P<test>[^|]+) \|$", re.MULTILINE
)
OPEN = "**not yet**"


def rows() -> list[re.Match[str]]:
    section = GUIDE.read_text(encoding="utf-8").partition(HEADING)[2].partition("\n## ")[0]
    found = list(ROW.finditer(section))
    return [row for row in found if row["complaint"] not in ("complaint", "---")]


def test_the_sixteen_complaints_and_the_ten_asks_are_all_there() -> None:
    assert len(rows()) == 26
    assert len({row["complaint"] for row in rows()}) == 26


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["complaint"])
def test_its_test_is_there_or_it_is_named_as_open(row: re.Match[str]) -> None:
    if row["test"] == OPEN:
        return
    file, _, name = row["test"].strip("`").partition("::")
    path = REPO / file
    assert path.is_file(), file
    functions = {node.name for node in syntax(path).body if isinstance(node, ast.FunctionDef)}
    assert name in functions
    assert row["answer"] != "-"
