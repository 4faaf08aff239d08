"""Releases and rollouts as counts, read from the store, the ledger and the journal."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from serving.artifact.store import REPORTS
from serving.fleet.rollout.holder import (
    LEASE,
    LeaseSign,
    free,
    holder_in,
    is_alive,
    read_lease,
    this_boot,
)
from serving.fleet.rollout.journal import (
    LEDGER,
    ROLLOUTS,
    Journal,
    history,
    open_rollout,
    standby_hosts,
)
from serving.fleet.rollout.records import LedgerEntry

RELEASES = ("released", "refused")
ROLLOUT_ENDS = ("done", "prepared", "refused", "rolled-back", "incomplete", "manual-intervention")
ROLLED_BACK_BY = ("person", "rollout")
UNREADABLE_S = 120.0
"""Seconds for which a lease that cannot be read counts as held, where it stands still."""


@dataclass(frozen=True)
class Production:
    """The version that the ledger calls production; `since` in seconds since the epoch."""

    version: str
    digest: str
    since: float


@dataclass(frozen=True)
class Ledger:
    """The content of the journal folder. Counts only grow, because its files only do."""

    production: Mapping[str, Production] = field(default_factory=dict)
    rollouts: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(model, how it ended) -> count"""
    rollbacks: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(model, one of ROLLED_BACK_BY) -> count"""
    in_progress: Mapping[str, bool] = field(default_factory=dict)
    """Somebody is at work on this model now."""
    unfinished: Mapping[str, bool] = field(default_factory=dict)
    """A rollout has neither ended nor been undone, whether or not somebody is at work."""
    verified: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """(model, host) -> when the host last verified a package, seconds since the epoch"""
    standby: frozenset[str] = frozenset()
    """Hosts that `fab scale` keeps out of traffic"""
    broken: Mapping[str, int] = field(default_factory=dict)
    """File of the journal folder -> its lines that are no record"""
    lease: LeaseSign | None = None
    """The fleet's lease as this poll saw it"""


def read_ledger(journal: Path, before: LeaseSign | None = None, now: float | None = None) -> Ledger:
    """Read the journal folder. Raises OSError for what cannot be read.

    `before` is the lease as the last poll saw it, `now` seconds of this process's monotonic clock.
    A broken line costs itself alone, and is counted.
    """
    if not journal.is_dir():
        raise FileNotFoundError(f"{journal} is not there")
    files = Journal(journal)
    ledger, journalled = files.read_ledger(), files.read_rollouts()
    entries, events = ledger.entries, journalled.entries
    named = {event.model for event in events if event.model}
    models = sorted({entry.model for entry in entries} | named)
    now = time.monotonic() if now is None else now
    content = read_lease(journal / LEASE)
    lease = before.after(content, now) if before else LeaseSign(content, now)
    held = lease_is_held(lease, now)
    rollouts: Counter[tuple[str, str]] = Counter()
    rollbacks: Counter[tuple[str, str]] = Counter()
    verified: dict[tuple[str, str], float] = {}
    for event in events:
        model = event.model or ""
        if event.event in ROLLOUT_ENDS:
            rollouts[model, event.event] += 1
        if event.event == "rolled-back":
            rollbacks[model, "rollout"] += 1
        if event.event == "step" and event.content["step"] == "staged":
            verified[model, event.host] = _seconds(event.at)
    for entry in entries:
        if entry.action == "rollback":
            rollbacks[entry.model, "person"] += 1
    committed = {entry.rollout for entry in entries}
    left = {
        model: open_rollout((e for e in events if e.model == model), committed) for model in models
    }
    open_now = {model: one is not None and not one.committed for model, one in left.items()}
    return Ledger(
        production={
            model: found
            for model in models
            if (found := _production([e for e in entries if e.model == model]))
        },
        rollouts={(m, end): rollouts[m, end] for m in models for end in ROLLOUT_ENDS},
        rollbacks={(m, by): rollbacks[m, by] for m in models for by in ROLLED_BACK_BY},
        in_progress={model: held and is_open for model, is_open in open_now.items()},
        unfinished=open_now,
        verified=verified,
        standby=frozenset(standby_hosts(events)),
        broken={LEDGER: len(ledger.broken), ROLLOUTS: len(journalled.broken)},
        lease=lease,
    )


def read_releases(store: Path) -> dict[tuple[str, str], int]:
    """(model, result) -> how many releases ended so. Raises OSError for a store not to be read.

    A report that is not one is skipped: reports are kept for people, and may be edited by them.
    """
    if not store.is_dir():
        raise FileNotFoundError(f"{store} is not there")
    found: Counter[tuple[str, str]] = Counter()
    for path in sorted((store / REPORTS).glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found[str(content["model"]), str(content["outcome"])] += 1
        except (ValueError, KeyError, TypeError):
            continue
    models = {model for model, _ in found}
    return {(model, result): found[model, result] for model in models for result in RELEASES}


def lease_is_held(sign: LeaseSign, now: float) -> bool:
    """True while a controller holds the fleet: its number moves, or has not stood still for long.

    A person's lock is no controller. `now` is of the monotonic clock that `sign` counts on.
    """
    holder = holder_in(sign.content, UNREADABLE_S)
    if holder is None or holder.reason:
        return False
    return not free(holder, now - sign.since, this_boot(), is_alive(holder))


def _production(entries: list[LedgerEntry]) -> Production | None:
    stack = history(entries)
    if not stack:
        return None
    last = next(entry for entry in reversed(entries) if entry.version == stack[-1])
    return Production(str(stack[-1]), last.digest, _seconds(last.at))


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()
