"""Tables: whole for a pipe, and for a terminal in groups of columns that fit."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text

from hpc.cli.table import GAP, column_groups, print_table

ROWS = [["row", "a" * 100, "b [red]x[/red]"], ["other", "c\x1b[31m", "d\ne"]]


@given(st.lists(st.integers(1, 50), min_size=2, max_size=12), st.integers(20, 120))
def test_groups_hold_each_column_once_and_fit(widths, terminal):
    groups = column_groups(widths, terminal)
    assert [column for group in groups for column in group] == list(range(1, len(widths)))
    for group in groups:
        fits = widths[0] + sum(widths[column] + GAP for column in group) <= terminal
        assert fits or len(group) == 1


def test_a_pipe_gets_whole_lines(capsys):
    print_table(ROWS, ["", "one", "two"])
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["one", "two"]
    assert first == f"row    {'a' * 100}  b [red]x[/red]"
    assert second.split("  ")[-1].strip() == "d e"
    assert "\\x1b[31m" in second


@pytest.mark.parametrize("columns", [30, 60, 200])
def test_a_terminal_gets_lines_that_fit_it(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_table(ROWS, ["", "one", "two"])
    lines = Text.from_ansi(capsys.readouterr().out).plain.splitlines()
    assert max(map(cell_len, lines)) <= columns
    assert "".join(line.strip() for line in lines).count("a" * 10) >= 1
    assert "red" in "".join(lines)


def test_no_rows_are_no_table(capsys):
    print_table([])
    assert capsys.readouterr().out.strip() == ""
