"""The trace of a punished run, as it was seen from outside, and each fault's cost. No effects."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

ENDING = ("rank", "node")
"""Kinds that end an attempt, before all others."""


@dataclass(frozen=True)
class Look:
    """One look at a run's folder; times are seconds since 1970."""

    at: float
    attempt: int
    """0 before the first one."""
    began_after: int
    """Step of the checkpoint from which the attempt goes on."""
    step: int
    """Of the last line of metrics.jsonl."""
    step_at: float
    """Time of that line; 0.0 without one."""


@dataclass(frozen=True)
class Injected:
    """One fault that was injected."""

    kind: str
    what: str
    """For people, as in "rank 1, pid 4711"."""
    at: float


@dataclass(frozen=True)
class Cost:
    """The cost of one fault."""

    fault: Injected
    comebacks: int
    """Attempts that ended after it, before the next fault to which their end is due."""
    trained_again_s: float | None
    """Seconds until the next step was logged, by the last of its comebacks; None for never."""
    steps_lost: int
    """Steps that were trained a second time."""


@dataclass
class _Attempt:
    number: int
    seen_at: float
    began_after: int
    steps: list[tuple[float, int]] = field(default_factory=list)
    """(time, step) of what it logged, as far as it was looked at."""

    @property
    def reached(self) -> int:
        return max((step for _, step in self.steps), default=self.began_after)


def costs(looks: Sequence[Look], faults: Sequence[Injected]) -> list[Cost]:
    """The cost of each of `faults`, which are in the order of their times.

    The end of an attempt is due to the newest killed rank or node since that attempt was first
    seen, else to the newest fault of any kind.
    """
    attempts = _attempts(looks)
    ends: dict[int, list[tuple[_Attempt, _Attempt]]] = {}
    for before, after in itertools.pairwise(attempts):
        if (due := _due_to(faults, before, after)) is not None:
            ends.setdefault(due, []).append((before, after))
    found = []
    for place, fault in enumerate(faults):
        mine = ends.get(place, [])
        since = mine[-1][1].seen_at if mine else fault.at
        again = [at for one in attempts for at, _ in one.steps if at > since]
        lost = sum(before.reached - new.began_after for before, new in mine)
        waited = min(again) - fault.at if again else None
        found.append(Cost(fault, len(mine), waited, lost))
    return found


def cost_rows(kinds: Sequence[str], found: Sequence[Cost]) -> list[tuple[str, ...]]:
    """Rows of a table: kind, injected, comebacks, seconds until it trained again (median and
    longest), steps lost (sum and most)."""
    rows: list[tuple[str, ...]] = []
    for kind in kinds:
        mine = [cost for cost in found if cost.fault.kind == kind]
        waits = [cost.trained_again_s for cost in mine if cost.trained_again_s is not None]
        lost = [cost.steps_lost for cost in mine]
        rows.append((
            kind, str(len(mine)), str(sum(cost.comebacks for cost in mine)),
            f"{median(waits):.1f} / {max(waits):.1f}" if waits else "-",
            f"{sum(lost)} / {max(lost)}" if lost else "-",
        ))  # fmt: skip
    return rows


def _attempts(looks: Sequence[Look]) -> list[_Attempt]:
    found: list[_Attempt] = []
    for look in looks:
        if look.attempt and (not found or found[-1].number != look.attempt):
            found.append(_Attempt(look.attempt, look.at, look.began_after))
        if not found:
            continue
        if look.attempt == found[-1].number:  # it may pass over checkpoints that are damaged
            found[-1].began_after = look.began_after
        # Until a new attempt has rewound the curve, the lines there are an older one's.
        owner = next((one for one in reversed(found) if one.seen_at < look.step_at), None)
        if owner and look.step and (not owner.steps or owner.steps[-1][0] < look.step_at):
            owner.steps.append((look.step_at, look.step))
    return found


def _due_to(faults: Sequence[Injected], before: _Attempt, after: _Attempt) -> int | None:
    """The place of the fault that ended `before`; None where none was injected by then."""
    since = [
        place
        for place, fault in enumerate(faults)
        if before.seen_at <= fault.at < after.seen_at and fault.kind in ENDING
    ]
    earlier = [place for place, fault in enumerate(faults) if fault.at < after.seen_at]
    due = since or earlier
    return due[-1] if due else None
