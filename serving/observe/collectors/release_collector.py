"""Releases and rollouts as counts, read from the store, the ledger and the journal."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from serving.artifact.store import REPORTS
from serving.fleet.rollout.journal import LEDGER, ROLLOUTS, history, read_lines, unfinished
from serving.fleet.rollout.lease import LEASE

RELEASES = ("released", "refused")
ROLLOUT_ENDS = ("done", "refused", "rolled-back", "manual-intervention")
ROLLED_BACK_BY = ("person", "rollout")


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


def read_ledger(journal: Path, now: float | None = None) -> Ledger:
    """Read the journal folder. Raises OSError, ValueError or KeyError for what cannot be read."""
    if not journal.is_dir():
        raise FileNotFoundError(f"{journal} is not there")
    entries, events = read_lines(journal / LEDGER), read_lines(journal / ROLLOUTS)
    models = sorted({str(item["model"]) for item in (*entries, *events) if "model" in item})
    held = lease_is_held(journal / LEASE, time.time() if now is None else now)
    rollouts: Counter[tuple[str, str]] = Counter()
    rollbacks: Counter[tuple[str, str]] = Counter()
    verified: dict[tuple[str, str], float] = {}
    for event in events:
        model = str(event["model"])
        if event["event"] in ROLLOUT_ENDS:
            rollouts[model, event["event"]] += 1
        if event["event"] == "rolled-back":
            rollbacks[model, "rollout"] += 1
        if event["event"] == "step" and event["step"] == "staged":
            verified[model, str(event["host"])] = _seconds(event["at"])
    for entry in entries:
        if entry["action"] == "rollback":
            rollbacks[str(entry["model"]), "person"] += 1
    open_now = {
        model: unfinished(e for e in events if e.get("model") == model) is not None
        for model in models
    }
    return Ledger(
        production={
            model: found
            for model in models
            if (found := _production([e for e in entries if e["model"] == model]))
        },
        rollouts={(m, end): rollouts[m, end] for m in models for end in ROLLOUT_ENDS},
        rollbacks={(m, by): rollbacks[m, by] for m in models for by in ROLLED_BACK_BY},
        in_progress={model: held and is_open for model, is_open in open_now.items()},
        unfinished=open_now,
        verified=verified,
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


def lease_is_held(path: Path, now: float) -> bool:
    """True when a controller has renewed its lock on the fleet within the lock's life."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return now - float(content["renewed"]) <= float(content["ttl_s"])
    except FileNotFoundError:
        return False


def _production(entries: list[dict[str, Any]]) -> Production | None:
    stack = history(entries)
    if not stack:
        return None
    last = next(entry for entry in reversed(entries) if int(entry["version"]) == stack[-1])
    return Production(str(stack[-1]), str(last.get("digest", "")), _seconds(last["at"]))


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()
