"""The steps of rollouts, one JSON object per line, on disk before each is done.

`rollouts.jsonl` has every step; `ledger.jsonl` has each version in production. Both only grow.
A controller that is killed leaves at worst half a line at the end: it is skipped by readers and
closed by the next writer.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conf.names import LETTERS, NAME, shown
from conf.user import user_name
from serving.artifact.durable import append_line
from serving.fleet.rollout.records import (
    Before,
    BrokenLine,
    JournalEvent,
    LedgerEntry,
    Records,
    entry_from,
    event_from,
    read_records,
)

ROLLOUTS, LEDGER = "rollouts.jsonl", "ledger.jsonl"
PERSON = "LOCKGATE_AS"
"""Variable of the environment with the name of the person at the controls."""
_ENDS = ("done", "rolled-back", "refused")


@dataclass(frozen=True)
class Unfinished:
    """A rollout that neither ended nor was undone, and the hosts it had begun to change."""

    rollout: str
    model: str
    version: int
    touched: dict[str, Before]


@dataclass(frozen=True)
class Journal:
    """The journal folder. Its files are made on the first record."""

    folder: Path

    def record(self, event: str, rollout: str, **content: Any) -> dict[str, Any]:
        """Append one event to `rollouts.jsonl`, durable when this returns."""
        entry = {"at": _now(), "who": operator(), "rollout": rollout, "event": event, **content}
        append(self.folder / ROLLOUTS, entry)
        return entry

    def read_rollouts(self) -> Records[JournalEvent]:
        """Every line of the journal. Raises OSError."""
        return read_records(self.folder / ROLLOUTS, event_from)

    def read_ledger(self) -> Records[LedgerEntry]:
        """Every line of the ledger. Raises OSError."""
        return read_records(self.folder / LEDGER, entry_from)

    def broken_lines(self) -> tuple[BrokenLine, ...]:
        """Every line of both files that is no record."""
        return (*self.read_ledger().broken, *self.read_rollouts().broken)

    def events(self, model: str | None = None) -> list[JournalEvent]:
        """Every event so far, oldest first; of one model's rollouts where `model` is given."""
        return [one for one in self.read_rollouts().entries if model in (None, one.model)]

    def unfinished(self, model: str) -> Unfinished | None:
        """The open rollout that a killed controller left of `model`, if any."""
        return unfinished(self.events(model))

    def enter(self, action: str, rollout: str, **content: Any) -> None:
        """Append to the ledger what production is from now on."""
        append(
            self.folder / LEDGER,
            {"at": _now(), "who": operator(), "action": action, "rollout": rollout, **content},
        )

    def productions(self, model: str) -> list[LedgerEntry]:
        """The ledger's entries for `model`, oldest first."""
        return [entry for entry in self.read_ledger().entries if entry.model == model]


def unfinished(events: Iterable[JournalEvent]) -> Unfinished | None:
    """The open rollout in one model's events; a later start takes over what an earlier one touched.

    A rollout whose undo did not succeed stays open: its hosts are still not as they were.
    """
    found: Unfinished | None = None
    for one in events:
        if one.event == "started" and one.model and one.version:
            inherited = found.touched if found else {}
            found = Unfinished(one.rollout, one.model, one.version, dict(inherited))
        elif found and one.before:
            found.touched.setdefault(one.host, one.before)
        elif found and one.event in _ENDS:
            found = None
    return found


def history(entries: Iterable[LedgerEntry]) -> list[int]:
    """Versions in production, as a stack: a deployment pushes, a rollback pops down to its target.

    So a rollback never returns to a version that an earlier rollback left.
    """
    stack: list[int] = []
    for entry in entries:
        if entry.action == "rollback" and entry.version in stack:
            del stack[stack.index(entry.version) + 1 :]
        elif not stack or stack[-1] != entry.version:
            stack.append(entry.version)
    return stack


def append(path: Path, entry: Mapping[str, Any]) -> None:
    """Append one line and wait until it is on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(entry, ensure_ascii=False, separators=(",", ":"))
    # Bytes of a command line that are no UTF-8 are half a surrogate pair here: as JSON's escape.
    append_line(path, line.encode(errors="backslashreplace").decode())


def operator() -> str:
    """The person at the controls, the account and the machine: `anna as lg-deploy@control`.

    The person is the one that `fab --as` names (`LOCKGATE_AS`), else the one who came by sudo;
    both are for people to read, and prove nothing.
    """
    account = user_name()
    here = f"{account}@{socket.gethostname()}"
    person = os.environ.get(PERSON) or os.environ.get("SUDO_USER") or account
    if person == account:
        return here
    named = person if NAME.fullmatch(person) and len(person) <= LETTERS else shown(person)
    return f"{named} as {here}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
