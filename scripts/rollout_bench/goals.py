"""Goals: a name, a bound, and the value that this run measured, or none.

A goal that was not measured does not hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


BYTES = "bytes of the control host to 8 hosts of one region, in packages"
RSYNC = "seconds to 4 hosts, against an rsync loop"
ANSIBLE = "seconds to 4 hosts, against Ansible"
AGAIN = "seconds of an unchanged push to 4 hosts, against Ansible"

FAILED = "failed requests under load"
REQUESTS = "requests under load"
P99_CHANGE = "p99 during a version change, in steady ones"
P99_RESTART = "p99 during a rolling restart, in steady ones"
STALL = "longest time without an answer, s"
FLIP = "from the first answer of the version before to the last of the other, s"
ROLLBACK = "from typing fab rollback to the last answer of the other version, s"


def all_goals(
    measured: Mapping[str, float], bounds: Mapping[str, float], requests: int = 100_000
) -> list[Goal]:
    """Every goal of the rollouts. `bounds` are the other tools' values, by the goal's name."""

    def against(name: str) -> Goal:
        return Goal(name, bounds.get(name), measured.get(name), "below")

    def limit(name: str, bound: float) -> Goal:
        return Goal(name, bound, measured.get(name))

    return [
        limit(BYTES, 1.1),
        against(RSYNC),
        against(ANSIBLE),
        against(AGAIN),
        limit(FAILED, 0),
        Goal(REQUESTS, requests, measured.get(REQUESTS), "at least"),
        limit(P99_CHANGE, 2),
        limit(P99_RESTART, 2),
        limit(STALL, 1),
        limit(FLIP, 2),
        limit(ROLLBACK, 2),
    ]


def goal_rows(goals: Sequence[Goal]) -> list[tuple[str, str, str]]:
    """Rows of a table: goal, value against bound, yes or no."""
    return [(goal.name, str(goal), "yes" if goal.holds else "no") for goal in goals]
