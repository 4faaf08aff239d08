"""Goals of a bench: a name, a bound, and the value that this run measured, or none.

A goal that was not measured does not hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal


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
