"""One rollout as a value: who, why, each step, each routing, each verdict, the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from serving.fleet.routing import Routing, VersionCounters

ENDS = ("done", "prepared", "rolled-back", "refused", "incomplete", "manual-intervention")
OPEN = "open"
"""The outcome of a rollout that has no end in the journal."""
CONTINUED = "continued"
"""The outcome of one that has none either, and that a later rollout of its model went on from."""


@dataclass(frozen=True)
class StepRecord:
    """One step of one host at `at`, in seconds since the epoch; `undo` when it brings back."""

    at: float
    host: str
    step: str
    detail: str
    undo: bool


@dataclass(frozen=True)
class RoutingRecord:
    """The routing of an edge from `at` on; `undo` when it brings back."""

    at: float
    edge: str
    routing: Routing
    undo: bool


@dataclass(frozen=True)
class AnalysisRecord:
    """One verdict on the canary at `percent` of the traffic, with its numbers by name."""

    at: float
    percent: float | None
    verdict: str
    reasons: tuple[str, ...]
    numbers: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class CountersRecord:
    """Requests and failures by version, summed over the edges, since these started."""

    at: float
    versions: Mapping[int, VersionCounters]


@dataclass(frozen=True)
class NoteRecord:
    """Any other event of the rollout: an order of an operator, an undo, the end."""

    at: float
    event: str
    who: str
    text: str


@dataclass(frozen=True)
class RolloutRecord:
    """One rollout. Times are seconds since the epoch; `ended` is None while it has no end.

    `outcome` is one of ENDS, OPEN or CONTINUED; `continued_by` is the rollout that took over what
    this one left, empty where it left nothing or nothing came after it. `hosts` are in the order of
    the plan, `hurt` are hosts that could not be brought back and `left_out` those that were not
    touched, each with the reason. `commit` is when the ledger took it, None for one that it never
    took; `previous` the version in production before.
    """

    rollout: str
    model: str
    version: int
    action: str
    who: str
    reason: str
    began: float
    last: float
    ended: float | None
    outcome: str
    outcome_reason: str
    commit: float | None
    previous: int | None
    digest: str
    strategy: str
    resumes: str
    continued_by: str
    waves: tuple[tuple[str, ...], ...]
    steps: tuple[StepRecord, ...] = ()
    routings: tuple[RoutingRecord, ...] = ()
    analyses: tuple[AnalysisRecord, ...] = ()
    counters: tuple[CountersRecord, ...] = ()
    notes: tuple[NoteRecord, ...] = ()
    hurt: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every host of the plan, then those that only steps name."""
        planned = [host for wave in self.waves for host in wave]
        return tuple(dict.fromkeys([*planned, *(step.host for step in self.steps)]))

    @property
    def seconds(self) -> float:
        """From its start to its end, or to its last event."""
        return max((self.ended if self.ended is not None else self.last) - self.began, 0.0)

    @property
    def last_step(self) -> str:
        """Host and name of the newest step; empty before the first."""
        return f"{self.steps[-1].host} {self.steps[-1].step}" if self.steps else ""

    def traffic(self) -> dict[int, VersionCounters] | None:
        """Requests and failures by version from the first counters to the last, None without."""
        if len(self.counters) < 2:
            return None
        first = self.counters[0].versions
        total: dict[int, VersionCounters] = {}
        for record in self.counters[1:]:
            for version, now in record.versions.items():
                before = first.get(version, VersionCounters(0, 0))
                gone = total.get(version, VersionCounters(0, 0))
                step = now.since(before)
                total[version] = VersionCounters(
                    gone.requests + step.requests, gone.errors + step.errors
                )
            first = {**first, **record.versions}
        return total
