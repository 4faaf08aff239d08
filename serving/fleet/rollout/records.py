"""The lines of the journal and of the ledger, each on its own: a record, or a broken line.

A file is bytes split at b"\n" and nothing else. One line that is torn, not UTF-8, not JSON or not a
record costs that line: it keeps its place and its reason, and every other is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

from conf.errors import LockgateError
from conf.names import check_name, shown
from serving.fleet.routing import Routing

Record = TypeVar("Record")
ACTIONS = ("deploy", "rollback")
OF_ONE_HOST = ("quarantined", "unquarantined", "drained", "restarted", "standby", "admitted")
"""Words about one host, of a person or of `fab scale`; of a rollout too where it has a model."""
_OF_THE_FLEET = ("locked", "unlocked", *OF_ONE_HOST)
_OF_A_HOST = ("step", "before", "proven", "parked", *OF_ONE_HOST)
_OF_A_MACHINE = ("upgrading", "upgraded")
_OF_AN_UPGRADE = ("upgrade-started", *_OF_A_MACHINE, "upgrade-ended")


@dataclass(frozen=True)
class Before:
    """A host as it was before a rollout touched it: what an undo brings back.

    `config` is the text of its `config.pbtxt`, None where it had none: a fact to compare with, and
    never sent. `edge` is its state there.
    """

    served: tuple[int, ...]
    config: str | None
    edge: str

    def as_json(self) -> dict[str, Any]:
        """For the journal."""
        return {"served": list(self.served), "config": self.config, "edge": self.edge}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Before:
        """From the journal. Raises KeyError, TypeError or ValueError."""
        config, edge = content["config"], content["edge"]
        if not isinstance(config, str | None) or edge not in ("ready", "drain", "maint"):
            raise ValueError(f"config or edge is none: {edge!r}")
        return cls(tuple(_number(one) for one in content["served"]), config, edge)


@dataclass(frozen=True)
class JournalEvent:
    """One line of the journal. `model` and `version` are None for a lock of the whole fleet, an
    order about one host, and an upgrade.

    `host` is that of an event about one, else empty; `before` its state in an event of that name;
    `versions` those that it was about to serve (`before`) or was proven to serve (`proven`);
    `routing` those of the edges when a rollout started; `content` is the whole line.
    """

    at: str
    who: str
    rollout: str
    event: str
    model: str | None
    version: int | None
    host: str
    before: Before | None
    content: Mapping[str, Any]
    versions: tuple[int, ...] = ()
    routing: Mapping[str, Routing] = field(default_factory=dict)


@dataclass(frozen=True)
class LedgerEntry:
    """One line of the ledger: from `at` on, `version` of `model` is production."""

    at: str
    who: str
    action: str
    rollout: str
    model: str
    version: int
    digest: str = ""


@dataclass(frozen=True)
class BrokenLine:
    """A line that is no record. `torn`: its writer was killed in it; its step was never begun."""

    path: Path
    number: int
    reason: str
    torn: bool

    def __str__(self) -> str:
        return f"{self.path}:{self.number}: {self.reason}"


@dataclass(frozen=True)
class Records(Generic[Record]):
    """The records of a file, oldest first, and its lines that are none."""

    entries: tuple[Record, ...] = ()
    broken: tuple[BrokenLine, ...] = ()


def read_records(path: Path, parse: Callable[[Any], Record]) -> Records[Record]:
    """Every line of a file; none for one that is not there. Raises OSError.

    The unfinished tail of a writer that was killed is left out: the next writer ends it.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Records()
    lines = data.split(b"\n")
    entries: list[Record] = []
    broken: list[BrokenLine] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entries.append(parse(json.loads(line.decode("utf-8"))))
        except (ValueError, KeyError, TypeError, RecursionError, LockgateError) as error:
            torn = _is_torn(line)
            if torn and number == len(lines):
                continue
            broken.append(BrokenLine(path, number, _reason(error, torn), torn))
    return Records(tuple(entries), tuple(broken))


def event_from(content: Any) -> JournalEvent:
    """A journal line's JSON as an event. Raises ValueError, KeyError, TypeError or ConfigError."""
    kind = _text(content, "event")
    model = version = before = None
    host = ""
    versions: tuple[int, ...] = ()
    routing: dict[str, Routing] = {}
    if kind not in _OF_THE_FLEET and kind not in _OF_AN_UPGRADE:
        model = check_name("model", _text(content, "model"))
        version = _number(content["version"])
    if kind in _OF_A_HOST or kind in _OF_A_MACHINE:
        host = check_name("host", _text(content, "host"))
    if kind == "step":
        _text(content, "step")
    if kind == "before":
        before = Before.from_json(content["before"])
    if kind in ("before", "proven"):
        versions = tuple(_number(one) for one in content.get("versions", ()))
    if kind == "parked" and _text(content, "edge") not in ("ready", "drain", "maint"):
        raise ValueError("edge is none")
    if kind == "scaled" and content["instances"] is not None:
        _number(content["instances"], "a number of instances")
    if kind == "started" and isinstance(content.get("routing"), dict):
        routing = {
            check_name("edge", str(name)): Routing.from_json(one)
            for name, one in content["routing"].items()
        }
    return JournalEvent(
        _time(content), _text(content, "who"), _rollout(content), kind, model, version, host,
        before, content, versions, routing,
    )  # fmt: skip


def entry_from(content: Any) -> LedgerEntry:
    """A ledger line's JSON as an entry. Raises ValueError, KeyError, TypeError or ConfigError."""
    action = _text(content, "action")
    if action not in ACTIONS:
        raise ValueError(f"action is {shown(action)}, not one of {', '.join(ACTIONS)}")
    digest = content.get("digest", "")
    if not isinstance(digest, str):
        raise ValueError("digest is not a text")
    model = check_name("model", _text(content, "model"))
    return LedgerEntry(
        _time(content), _text(content, "who"), action, _rollout(content), model,
        _number(content["version"]), digest,
    )  # fmt: skip


def _text(content: Any, key: str) -> str:
    if not isinstance(content, dict):
        raise ValueError("not an object")
    value = content[key]
    if not isinstance(value, str):
        raise ValueError(f"{key} is not a text")
    value.encode("utf-8")  # half of a surrogate pair is JSON, and no text
    return value


def _number(value: Any, what: str = "a version's number") -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{shown(str(value))} is not {what}")
    return value


def _rollout(content: Any) -> str:
    return check_name("rollout", _text(content, "rollout"), letters=128)


def _time(content: Any) -> str:
    at = _text(content, "at")
    if datetime.fromisoformat(at).tzinfo is None:
        raise ValueError("at has no time zone")
    return at


def _is_torn(line: bytes) -> bool:
    """True for the beginning of a line of ours: every whole one is an object with `at` first."""
    if not line.startswith(b'{"at":'[: len(line)]):
        return False
    try:
        json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return error.end == len(line)
    except json.JSONDecodeError as error:
        return not line.endswith(b"}") or error.pos >= len(error.doc)
    except (ValueError, RecursionError):
        return False
    return False


def _reason(error: Exception, torn: bool) -> str:
    if torn:
        return "cut off: its writer was killed in it, and its step was never begun"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON ({error.msg} at letter {error.pos + 1})"
    if isinstance(error, RecursionError):
        return "nested too deep"
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return str(error).split("\n")[0]
