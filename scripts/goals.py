"""Goals of a bench: a name, a bound, and the value that this run measured, or none.

A goal that was not measured does not hold.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Goal:
    """One goal. `value` is None where it was not measured; `bound` may be another tool's value."""

    name: str
    bound: float | None
    value: float | None = None
    sense: Literal["at most", "below", "at least"] = "at most"

    @property
    def holds(self) -> bool:
        """True when the value was measured and keeps to the bound."""
        if self.value is None or self.bound is None:
            return False
        if self.sense == "at least":
            return self.value >= self.bound
        return self.value < self.bound if self.sense == "below" else self.value <= self.bound

    def as_json(self) -> dict[str, Any]:
        """The goal as `scripts/bench --json` lists it."""
        return {"goal": self.name, "value": self.value, "bound": self.bound, "holds": self.holds}

    def __str__(self) -> str:
        if self.value is None or self.bound is None:
            return "not measured"
        return f"{self.value:.4g} ({self.sense} {self.bound:.4g})"


def goal_rows(goals: Sequence[Goal]) -> list[tuple[str, str, str]]:
    """Rows of a table: goal, value against bound, yes or no."""
    return [(goal.name, str(goal), "yes" if goal.holds else "no") for goal in goals]


def goals_table(goals: Sequence[Goal]) -> Table:
    """The table of the goals."""
    return figures_table("Goals", ("goal", "value", "holds"), goal_rows(goals))


def figures_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table of a bench."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    return table


def print_goals(
    goals: Sequence[Goal], tables: Sequence[Table], faults: Sequence[str], as_json: bool
) -> int:
    """Print `goals` as JSON, or else `tables`, and `faults`, the parts that were not measured.

    Returns the exit code: 0 where all was measured that was asked for, and holds.
    """
    for fault in faults:
        print(f"scripts/bench: not measured: {fault}", file=sys.stderr)
    if as_json:
        print(json.dumps([goal.as_json() for goal in goals], indent=2))
    else:
        console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
        for table in tables:
            console.print(table)
    held = all(goal.holds for goal in goals if goal.value is not None)
    return 0 if held and not faults else 1
