"""The steps of rollouts, one JSON object per line, on disk before each is done.

`rollouts.jsonl` has every step; `ledger.jsonl` has each version in production, and its line is the
one commit point: a rollout that is in the ledger is finished, whatever else is missing. Both only
grow.
A controller that is killed leaves at worst half a line at the end: it is skipped by readers and
closed by the next writer.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
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
from serving.fleet.routing import Routing

ROLLOUTS, LEDGER = "rollouts.jsonl", "ledger.jsonl"
PERSON = "LOCKGATE_AS"
"""Variable of the environment with the name of the person at the controls."""
_ENDS = ("done", "rolled-back", "refused", "incomplete", "prepared")


@dataclass(frozen=True)
class Unfinished:
    """A rollout that neither ended nor was undone, and what it had begun to change.

    `action` is deploy, rollback or heal. `touched` are hosts as they were before, `parked` the edge
    states of those that were only taken out of traffic, `routing` that of the edges before. A
    rollout that is `committed` ended well but for its last checks: nothing of it is to be undone.
    """

    rollout: str
    model: str
    version: int
    touched: dict[str, Before]
    action: str = "deploy"
    parked: dict[str, str] = field(default_factory=dict)
    routing: dict[str, Routing] = field(default_factory=dict)
    committed: bool = False


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
        """The rollout of `model` that did not get to the ledger, if a killed controller left one
        or its undo did not succeed."""
        found = self.open_rollout(model)
        return None if found is None or found.committed else found

    def open_rollout(self, model: str) -> Unfinished | None:
        """The last rollout of `model` where it has no end, committed or not."""
        return open_rollout(self.events(model), {one.rollout for one in self.productions(model)})

    def is_committed(self, model: str, rollout: str) -> bool:
        """True when the ledger has the rollout."""
        return any(entry.rollout == rollout for entry in self.productions(model))

    def warm(self, model: str) -> dict[str, tuple[int, ...]]:
        """The versions that were proven last on each host, and are not known to have left it."""
        found: dict[str, tuple[int, ...]] = {}
        for one in self.events(model):
            if one.event == "proven":
                found[one.host] = one.versions
            elif one.event == "before" and one.host in found:
                found[one.host] = tuple(v for v in found[one.host] if v in one.versions)
        return found

    def quarantined(self) -> dict[str, str]:
        """The hosts that are kept out of traffic until `fab undrain`, each with the reason."""
        return _hosts_out(self.read_rollouts().entries, "quarantined", ("unquarantined",))

    def standby(self) -> dict[str, str]:
        """The hosts that `fab scale` took out and may bring in again, each with the reason."""
        return standby_hosts(self.read_rollouts().entries)

    def instances(self, model: str) -> int | None:
        """The number of instances that `fab scale` last gave `model`; None is as packaged."""
        scaled = [one for one in self.events(model) if one.event == "scaled"]
        return scaled[-1].content["instances"] if scaled else None

    def enter(self, action: str, rollout: str, **content: Any) -> None:
        """Append to the ledger what production is from now on."""
        append(
            self.folder / LEDGER,
            {"at": _now(), "who": operator(), "action": action, "rollout": rollout, **content},
        )

    def productions(self, model: str) -> list[LedgerEntry]:
        """The ledger's entries for `model`, oldest first."""
        return [entry for entry in self.read_ledger().entries if entry.model == model]


def open_rollout(events: Iterable[JournalEvent], ledger: Container[str]) -> Unfinished | None:
    """The open rollout in one model's events; a later start takes over what an earlier one touched.

    `ledger` has the ids of committed rollouts. A rollout whose undo did not succeed stays open: its
    hosts are still not as they were.
    """
    found: Unfinished | None = None
    for one in events:
        if one.event == "started" and one.model and one.version:
            earlier = _settled(found, ledger)
            found = Unfinished(
                one.rollout, one.model, one.version,
                dict(earlier.touched) if earlier else {},
                str(one.content.get("action", "deploy")),
                dict(earlier.parked) if earlier else {},
                {**one.routing, **(earlier.routing if earlier else {})},
            )  # fmt: skip
        elif found and one.before:
            found.touched.setdefault(one.host, one.before)
        elif found and one.event == "parked":
            found.parked.setdefault(one.host, str(one.content["edge"]))
        elif found and one.event in _ENDS:
            found = None
    return _settled(found, ledger)


def standby_hosts(events: Iterable[JournalEvent]) -> dict[str, str]:
    """The hosts on standby after `events`, each with the reason.

    A person's word about a host ends it: one that was drained or quarantined is no reserve.
    """
    ends = ("admitted", "unquarantined", "quarantined", "drained")
    return _hosts_out(events, "standby", ends)


def _hosts_out(events: Iterable[JournalEvent], begins: str, ends: Container[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in events:
        if one.event == begins:
            found[one.host] = str(one.content.get("reason", ""))
        elif one.event in ends:
            found.pop(one.host, None)
    return found


def _settled(found: Unfinished | None, ledger: Container[str]) -> Unfinished | None:
    if found is None or found.rollout not in ledger:
        return found
    return replace(found, touched={}, routing={}, committed=True)


def history(entries: Iterable[LedgerEntry]) -> list[int]:
    """Versions in production, as a stack: a deployment pushes, a rollback pops down to its target.

    So a rollback never returns to a version that an earlier rollback left, nor to one above its
    target where the target is older than the ledger.
    """
    stack: list[int] = []
    for entry in entries:
        if entry.action == "rollback":
            stack = [version for version in stack if version <= entry.version]
        if not stack or stack[-1] != entry.version:
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
