"""Tables for the terminal, in groups of columns that fit it; plain and whole for a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from conf.names import printable

NARROWEST = 16
"""Letters of a column below which columns go into another group."""
GAP = 3
"""Letters between two columns on a terminal."""


def print_table(rows: Sequence[Sequence[str]], header: Sequence[str] | None = None) -> None:
    """Print `rows`, of one length; the first column names them, and stands in each group."""
    cells = [[_line(cell) for cell in row] for row in ([header] if header else []) + list(rows)]
    if not sys.stdout.isatty():
        print("\n".join(aligned(cells)))
    elif cells:
        _print_rich(cells, header is not None)


def aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    """The rows as lines of text, their columns under one another."""
    widths = _widths(cells)
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def column_groups(widths: Sequence[int], terminal: int) -> list[list[int]]:
    """The columns after the first, in groups that fit beside it into `terminal` letters.

    A column that does not fit alone is a group of its own.
    """
    groups: list[list[int]] = []
    left = 0
    for column, width in enumerate(widths[1:], 1):
        if not groups or width + GAP > left:
            groups.append([])
            left = terminal - widths[0]
        groups[-1].append(column)
        left -= width + GAP
    return groups or [[]]


def _print_rich(cells: Sequence[Sequence[str]], has_header: bool) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    terminal, widths = console.width - 2, _widths(cells)
    share = (terminal - widths[0]) // max(len(widths) - 1, 1) - GAP
    widths = [widths[0], *(min(width, max(share, NARROWEST)) for width in widths[1:])]
    for group in column_groups(widths, terminal):
        shown = [0, *group]
        table = Table(box=box.SIMPLE, pad_edge=False, show_header=has_header)
        for column in shown:
            # As text: rich would take a name such as [red] for a colour.
            title = Text(cells[0][column]) if has_header else ""
            table.add_column(title, max_width=widths[column], overflow="fold")
        for row in cells[has_header:]:
            table.add_row(*(Text(row[column]) for column in shown))
        console.print(table)


def _widths(cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*cells, strict=True)]


def _line(cell: str) -> str:
    return printable(" ".join(cell.split("\n")))
