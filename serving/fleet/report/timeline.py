"""The steps of a rollout as lanes over time: one for each host, one for each edge. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from serving.fleet.report.rollout_record import RolloutRecord, StepRecord
from serving.fleet.rollout.traffic import routing_text
from serving.fleet.routing import Routing

LANES = 200
"""Hosts that are drawn; of a larger fleet those that differ come first."""
UNDO, HURT = "undo", "hurt"
_KINDS = {
    "staged": "stage", "stage": "stage", "transfer": "stage",
    "drain": "away", "park": "away", "restart": "away", "stuck": "away", "trim": "load",
    "install": "load", "load": "load", "clean": "load", "check": "check", "checked": "check",
    "undrain": "watch", "keep": "watch", "healthy": "watch",
}  # fmt: skip
SEGMENTS = 5000
"""Parts of lanes that are drawn; of a lane with more than its share the newest."""
EDGE_SEGMENTS = 200
_COMPLETED = ("staged", "checked", "healthy", "undone", "keep", "failed")
"""Steps that are journalled when they are over; any other when it begins."""
_MOMENTS = ("undrain", "clean")
"""Steps that end of themselves; as the last of a host they do not last until the end."""


@dataclass(frozen=True)
class LaneSegment:
    """A part of a lane from `begin` to `end`, in seconds after the rollout's start.

    `kind` is its colour, `label` its text; of a routing also in the lane itself.
    """

    begin: float
    end: float
    kind: str
    label: str


@dataclass(frozen=True)
class TimeLane:
    """One host or edge; `mark` is `healthy`, `undo`, `hurt` or empty for its end."""

    name: str
    segments: tuple[LaneSegment, ...]
    mark: str = ""


def host_lanes(record: RolloutRecord) -> tuple[tuple[TimeLane, ...], int]:
    """A lane for each host in the order of the plan, and the number of hosts that are left out."""
    by_host: dict[str, list[StepRecord]] = {host: [] for host in record.hosts}
    for step in record.steps:
        by_host[step.host].append(step)
    most = max(SEGMENTS // max(min(len(by_host), LANES), 1), 1)
    lanes = [_host_lane(record, host, steps, most) for host, steps in by_host.items()]
    if len(lanes) <= LANES:
        return tuple(lanes), 0
    odd = [lane for lane in lanes if lane.mark != "healthy"]
    chosen = [*odd, *(lane for lane in lanes if lane.mark == "healthy")][:LANES]
    kept = {lane.name for lane in chosen}
    return tuple(lane for lane in lanes if lane.name in kept), len(lanes) - LANES


def edge_lanes(record: RolloutRecord) -> tuple[TimeLane, ...]:
    """A lane for each edge: the routing from each change of its map to the next."""
    found = []
    for edge in dict.fromkeys(one.edge for one in record.routings):
        changes = [one for one in record.routings if one.edge == edge]
        ends = [*(_after(record, one.at) for one in changes[1:]), record.seconds]
        first = _after(record, changes[0].at)
        segments = [LaneSegment(0.0, first, "old", "as before")] if first else []
        for one, end in zip(changes, ends, strict=True):
            begin = _after(record, one.at)
            kind = UNDO if one.undo else _routing_kind(record, one.routing)
            segments.append(LaneSegment(begin, max(end, begin), kind, routing_text(one.routing)))
        found.append(TimeLane(edge, tuple(segments[-EDGE_SEGMENTS:])))
    return tuple(found)


def _routing_kind(record: RolloutRecord, routing: Routing) -> str:
    if routing.version == record.version:
        return "new"
    return "canary" if routing.canary is not None else "old"


def _host_lane(record: RolloutRecord, host: str, steps: list[StepRecord], most: int) -> TimeLane:
    segments = []
    begin: float | None = 0.0  # staging is journalled when it is over
    kind, label = "stage", ""
    for step in steps:
        at = _after(record, step.at)
        completed = step.step in _COMPLETED
        if begin is not None and at > begin and (label or completed):
            shown = label or f"{step.step} {step.detail}".strip()
            segments.append(LaneSegment(begin, at, kind, shown))
        kind = UNDO if step.undo else _KINDS.get(step.step, "step")
        begin = None if completed else at
        label = "" if completed else f"{step.step} {step.detail}".strip()
        if completed:
            # A point as well: its detail is the finding of the step.
            segments.append(LaneSegment(at, at, kind, f"{step.step} {step.detail}".strip()))
    if begin is not None and label:
        end = begin if steps[-1].step in _MOMENTS else max(record.seconds, begin)
        segments.append(LaneSegment(begin, end, kind, label))
    return TimeLane(host, tuple(segments[-most:]), _mark(record, host, steps))


def _mark(record: RolloutRecord, host: str, steps: list[StepRecord]) -> str:
    if host in record.hurt:
        return HURT
    if any(step.undo for step in steps):
        return UNDO
    return "healthy" if any(step.step in ("checked", "healthy") for step in steps) else ""


def _after(record: RolloutRecord, at: float) -> float:
    """Seconds after the start; clocks of two controllers may differ, and time never runs back."""
    return max(at - record.began, 0.0)
