"""The steps of rollouts, one JSON object per line, on disk before each is done.

`rollouts.jsonl` has every step; `ledger.jsonl` has each version in production. Both only grow.
A controller that is killed leaves at worst half a line at the end: it is skipped by readers and
closed by the next writer.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conf.user import user_name
from serving.artifact.durable import append_line

ROLLOUTS, LEDGER = "rollouts.jsonl", "ledger.jsonl"
_ENDS = ("done", "rolled-back", "refused")


@dataclass(frozen=True)
class Before:
    """A host as it was before a rollout touched it: what an undo brings back.

    `config` is the text of its `config.pbtxt`, None where it had none; `edge` its state there.
    """

    served: tuple[int, ...]
    config: str | None
    edge: str

    def as_json(self) -> dict[str, Any]:
        """For the journal."""
        return {"served": list(self.served), "config": self.config, "edge": self.edge}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Before:
        """From the journal."""
        return cls(tuple(content["served"]), content["config"], content["edge"])


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

    def events(self, model: str | None = None) -> list[dict[str, Any]]:
        """Every event so far, oldest first; of one model's rollouts where `model` is given."""
        events = read_lines(self.folder / ROLLOUTS)
        return [event for event in events if model in (None, event.get("model"))]

    def unfinished(self, model: str) -> Unfinished | None:
        """The open rollout that a killed controller left of `model`, if any."""
        return unfinished(self.events(model))

    def enter(self, action: str, rollout: str, **content: Any) -> None:
        """Append to the ledger what production is from now on."""
        append(
            self.folder / LEDGER,
            {"at": _now(), "who": operator(), "action": action, "rollout": rollout, **content},
        )

    def productions(self, model: str) -> list[dict[str, Any]]:
        """The ledger's entries for `model`, oldest first."""
        return [entry for entry in read_lines(self.folder / LEDGER) if entry.get("model") == model]


def unfinished(events: Iterable[Mapping[str, Any]]) -> Unfinished | None:
    """The open rollout in one model's events; a later start takes over what an earlier one touched.

    A rollout whose undo did not succeed stays open: its hosts are still not as they were.
    """
    found: Unfinished | None = None
    for event in events:
        kind = event["event"]
        if kind == "started":
            inherited = found.touched if found else {}
            found = Unfinished(
                event["rollout"], event["model"], int(event["version"]), dict(inherited)
            )
        elif found and kind == "before":
            found.touched.setdefault(event["host"], Before.from_json(event["before"]))
        elif found and kind in _ENDS:
            found = None
    return found


def history(entries: Iterable[Mapping[str, Any]]) -> list[int]:
    """Versions in production, as a stack: a deployment pushes, a rollback pops down to its target.

    So a rollback never returns to a version that an earlier rollback left.
    """
    stack: list[int] = []
    for entry in entries:
        version = int(entry["version"])
        if entry["action"] == "rollback" and version in stack:
            del stack[stack.index(version) + 1 :]
        elif not stack or stack[-1] != version:
            stack.append(version)
    return stack


def append(path: Path, entry: Mapping[str, Any]) -> None:
    """Append one line and wait until it is on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    append_line(path, json.dumps(entry, ensure_ascii=False, separators=(",", ":")))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Every whole line of a journal file; none for a file that is not there."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    entries = []
    for line in lines:
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # a writer was killed in the middle of it; its step was never begun
    return entries


def operator() -> str:
    """The person or identity and the machine at the controls."""
    return f"{user_name()}@{socket.gethostname()}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
