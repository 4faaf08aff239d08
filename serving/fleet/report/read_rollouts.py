"""Rollouts read from the journal's events and the ledger.

Others write the journal too, and later versions of Lockgate: a field that is missing or of the
wrong kind is left out, and costs nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from serving.fleet.report.rollout_record import (
    CONTINUED,
    ENDS,
    OPEN,
    AnalysisRecord,
    CountersRecord,
    NoteRecord,
    RolloutRecord,
    RoutingRecord,
    StepRecord,
)
from serving.fleet.rollout.records import JournalEvent, LedgerEntry
from serving.fleet.rollout.traffic import routing_text
from serving.fleet.routing import Routing, VersionCounters

STEP, STARTED, ROUTED = "step", "started", "routed"
ANALYSIS, COUNTERS, UNDOING = "analysis", "counters", "undoing"
_SHOWN = (STEP, STARTED, ROUTED, ANALYSIS, COUNTERS, "before", "parked", "proven")


def rollout_records(
    events: Sequence[JournalEvent], ledger: Sequence[LedgerEntry]
) -> list[RolloutRecord]:
    """Every rollout that has a start in `events`, oldest first."""
    by_rollout: dict[str, list[JournalEvent]] = {}
    for one in events:
        by_rollout.setdefault(one.rollout, []).append(one)
    entries = {entry.rollout: entry for entry in ledger}
    records = [
        _record(rollout, found, entries.get(rollout), ledger)
        for rollout, found in by_rollout.items()
        if any(one.event == STARTED and one.model and one.version for one in found)
    ]
    return _with_successors(records)


def seconds_of(at: str) -> float:
    """A journal's time as seconds since the epoch. Raises ValueError."""
    return datetime.fromisoformat(at).timestamp()


def event_text(event: str, content: Mapping[str, Any]) -> str:
    """The sentence of an event for people: its reason, else its step or routing; else empty."""
    if event == STEP:
        return f"{_text(content, 'step')} {_text(content, 'detail')}".strip()
    if event == ROUTED:
        routing = _routing(content)
        return f"{_text(content, 'edge')}: {routing_text(routing) if routing else 'not readable'}"
    if event == ANALYSIS:
        reasons = " ".join(_texts(content.get("reasons")))
        return f"{_text(content, 'verdict')} {reasons}".strip()
    host, reason, left = _text(content, "host"), _text(content, "reason"), content.get("left")
    if not reason and isinstance(left, dict):
        reason = " ".join(str(sentence) for sentence in left.values())
    return f"{host}: {reason}" if host else reason


def _with_successors(records: Sequence[RolloutRecord]) -> list[RolloutRecord]:
    """The same records, each that left its hosts between two versions with its model's next: a
    rollout takes over what the one before it touched, as `journal.open_rollout` reads it."""
    found: list[RolloutRecord] = []
    later: dict[str, RolloutRecord] = {}
    for record in reversed(records):
        after = later.get(record.model)
        later[record.model] = record
        if after and record.outcome in (OPEN, "manual-intervention"):
            by = f"continued by {after.action} {after.rollout}"
            record = replace(
                record,
                outcome=CONTINUED if record.outcome == OPEN else record.outcome,
                outcome_reason="; ".join(one for one in (record.outcome_reason, by) if one),
                continued_by=after.rollout,
            )
        found.append(record)
    return found[::-1]


def _record(
    rollout: str,
    events: Sequence[JournalEvent],
    entry: LedgerEntry | None,
    ledger: Iterable[LedgerEntry],
) -> RolloutRecord:
    start = next(one for one in events if one.event == STARTED)
    assert start.model and start.version
    end = next((one for one in reversed(events) if one.event in ENDS), None)
    times = [seconds_of(one.at) for one in events]
    commit = seconds_of(entry.at) if entry else None
    outcome, ended = OPEN, None
    if end:
        outcome, ended = end.event, seconds_of(end.at)
    elif commit is not None:
        outcome, ended = "done", commit
    steps, routings, analyses, counters, notes = [], [], [], [], []
    undo = False
    for one, at in zip(events, times, strict=True):
        undo = undo or one.event == UNDOING
        content = one.content
        if one.event == STEP:
            name = _text(content, "step")
            steps.append(StepRecord(at, one.host, name, _text(content, "detail"), undo))
        elif one.event == ROUTED and (routing := _routing(content)):
            routings.append(RoutingRecord(at, _text(content, "edge") or "-", routing, undo))
        elif one.event == ANALYSIS:
            analyses.append(_analysis(at, content))
        elif one.event == COUNTERS:
            counters.append(CountersRecord(at, _counters(content)))
        elif one.event not in _SHOWN:
            who = _text(content, "by") or one.who  # an order is written down by its controller
            notes.append(NoteRecord(at, one.event, who, event_text(one.event, content)))
    return RolloutRecord(
        rollout=rollout,
        model=start.model,
        version=start.version,
        action=_text(start.content, "action") or (entry.action if entry else "deploy"),
        who=start.who,
        reason=_text(start.content, "reason"),
        began=seconds_of(start.at),
        last=max(times),
        ended=ended,
        outcome=outcome,
        outcome_reason=event_text(end.event, end.content) if end else "",
        commit=commit,
        previous=_previous(start, entry, ledger),
        digest=_text(start.content, "digest"),
        strategy=_text(start.content, "strategy"),
        resumes=_text(start.content, "resumes"),
        continued_by="",
        waves=_waves(start.content.get("waves")),
        steps=tuple(steps),
        routings=tuple(routings),
        analyses=tuple(analyses),
        counters=tuple(counters),
        notes=tuple(notes),
        hurt=_reasons(end.content.get("stuck")) if end else {},
        left_out=_reasons(start.content.get("left_out")),
    )


def _previous(
    start: JournalEvent, entry: LedgerEntry | None, ledger: Iterable[LedgerEntry]
) -> int | None:
    """The version in production when the rollout began: as it wrote itself, else by the ledger."""
    written = start.content.get("previous")
    if isinstance(written, int) and not isinstance(written, bool):
        return written
    before = [
        one.version
        for one in ledger
        if one.model == start.model
        and one is not entry
        and seconds_of(one.at) <= seconds_of(start.at)
    ]
    return before[-1] if before else None


def _analysis(at: float, content: Mapping[str, Any]) -> AnalysisRecord:
    percent = content.get("percent")
    numbers = content.get("numbers")
    return AnalysisRecord(
        at,
        float(percent) if isinstance(percent, int | float) else None,
        _text(content, "verdict") or "unknown",
        _texts(content.get("reasons")),
        tuple(_flat(numbers)) if isinstance(numbers, dict) else (),
    )


def _flat(numbers: Mapping[Any, Any], above: str = "") -> Iterable[tuple[str, str]]:
    """Names and values of a nested object, as text; deeper than three levels is left out."""
    for name, value in numbers.items():
        path = f"{above}{name}"
        if isinstance(value, dict):
            if path.count(" ") < 3:
                yield from _flat(value, f"{path} ")
        elif isinstance(value, float):
            yield path, f"{value:.4g}"
        elif isinstance(value, int | str):
            yield path, str(value)


def _counters(content: Mapping[str, Any]) -> dict[int, VersionCounters]:
    found: dict[int, VersionCounters] = {}
    versions = content.get("versions")
    for name, pair in versions.items() if isinstance(versions, dict) else ():
        try:
            requests, errors = pair
            found[int(name)] = VersionCounters(int(requests), int(errors))
        except (TypeError, ValueError):
            continue
    return found


def _routing(content: Mapping[str, Any]) -> Routing | None:
    try:
        return Routing.from_json(content["routing"])
    except (KeyError, TypeError, ValueError):
        return None


def _waves(value: Any) -> tuple[tuple[str, ...], ...]:
    if not isinstance(value, list):
        return ()
    return tuple(_texts(wave) for wave in value)


def _reasons(value: Any) -> dict[str, str]:
    found = value.items() if isinstance(value, dict) else ()
    return {str(host): str(reason) for host, reason in found}


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()


def _text(content: Mapping[str, Any], key: str) -> str:
    value = content.get(key)
    return value if isinstance(value, str) else ""
