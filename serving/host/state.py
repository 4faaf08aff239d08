"""The memory of a host between commands, each part a small file that appears whole.

fence: the highest number that a controller has shown; a lower one is a controller that has lost the
fleet. <model>.highest: the highest version accepted; an older one passes only as a rollback.
revoked: digests that are refused from now on. verified.json: the last verification of all.
answers.json: the last golden question of each version that serves, by the host itself.
<model>.proven: the versions that a controller proved in service, one in each line.
<model>.wanted.json: the versions that a controller last had this host persist and serve.
<model>.instances: the number of instances that it has here; none where it is as packaged.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from serving.artifact.durable import append_line, replace_file
from serving.host.errors import HostRefusal
from serving.host.home import HostHome

ANSWERS = "answers.json"

Verdicts = dict[str, dict[str, dict[str, Any]]]
"""By model and version: {"ok", "detail", "at" (UTC, ISO), "seconds", "failed_in_row"}."""


@contextmanager
def exclusive(home: HostHome, work: str) -> Iterator[None]:
    """Hold the host for `work`: changes and verifications take turns. A killed holder frees it."""
    handle = os.open(home.state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        os.ftruncate(handle, 0)
        os.pwrite(handle, work.encode(), 0)
        yield
    finally:
        os.close(handle)


def work_in_hand(home: HostHome) -> str:
    """The work of the one who holds the host now, "" for nobody."""
    try:
        handle = os.open(home.state / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(handle, 200, 0).decode(errors="replace")
    else:
        return ""
    finally:
        os.close(handle)


def fence(home: HostHome) -> int:
    """The highest fencing number seen; 0 before the first."""
    return _number(home, "fence")


def pass_fence(home: HostHome, number: int) -> None:
    """Raises HostRefusal("fence") for a number below the highest seen; else remembers it."""
    seen = fence(home)
    if number < seen:
        raise HostRefusal(
            "fence",
            f"a newer controller (fence {seen}) has commanded this host; this one has {number}",
        )
    if number > seen:
        replace_file(home.state / "fence", f"{number}\n")


def highest(home: HostHome, model: str) -> int:
    """The highest version of `model` that this host has accepted; 0 for none."""
    return _number(home, f"{model}.highest")


def refuse_older(home: HostHome, model: str, version: int, rollback: bool) -> None:
    """Raises HostRefusal("older-version") for a version below the highest, but for a rollback."""
    have = highest(home, model)
    if version < have and not rollback:
        raise HostRefusal(
            "older-version",
            f"{model}/{version} is older than {model}/{have}, which this host has accepted; "
            "it passes only as a rollback that names it",
        )


def remember_highest(home: HostHome, model: str, version: int) -> None:
    """Raise the mark of `model` to `version`; it never falls."""
    if version > highest(home, model):
        replace_file(home.state / f"{model}.highest", f"{version}\n")


def instances(home: HostHome, model: str) -> int | None:
    """The number of instances that `model` has on this host; None where it is as packaged."""
    return _number(home, f"{model}.instances") or None


def remember_instances(home: HostHome, model: str, count: int | None) -> None:
    """Give `model` `count` instances from the next config on, as packaged where None."""
    replace_file(home.state / f"{model}.instances", f"{count or 0}\n")


def proven_versions(home: HostHome, model: str) -> frozenset[int]:
    """The versions of `model` that a controller proved in service here; empty before the first."""
    try:
        lines = (home.state / f"{model}.proven").read_text(encoding="ascii").split()
    except FileNotFoundError:
        return frozenset()
    return frozenset(int(line) for line in lines if line.isdigit())


def remember_proven(home: HostHome, model: str, version: int) -> None:
    """Remember that `version` served and answered as it must."""
    if version not in proven_versions(home, model):
        append_line(home.state / f"{model}.proven", str(version))


def revoked_list(home: HostHome) -> Path:
    """The file of revoked digests, as `serving.artifact.verify` reads it; made where missing."""
    path = home.state / "revoked"
    path.touch(mode=0o644)
    return path


def revoke(home: HostHome, digest: str) -> None:
    """Refuse the package with this manifest digest (64 hex digits) from now on."""
    line, path = f"sha256:{digest}", revoked_list(home)
    if line not in path.read_text(encoding="utf-8").split("\n"):
        append_line(path, line)


def write_verification(home: HostHome, faults: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Record a verification of everything, as UTC time and its faults; returns the record."""
    record = {
        "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "ok": not faults,
        "faults": list(faults),
    }
    replace_file(home.state / "verified.json", json.dumps(record, sort_keys=True) + "\n")
    return record


def last_verification(home: HostHome) -> dict[str, Any] | None:
    """The record of `write_verification`, None before the first."""
    try:
        record: dict[str, Any] = json.loads((home.state / "verified.json").read_bytes())
    except FileNotFoundError:
        return None
    return record


def write_verdicts(home: HostHome, verdicts: Verdicts) -> None:
    """Record the last golden questions; a power cut may take them."""
    text = json.dumps(verdicts, sort_keys=True) + "\n"
    replace_file(home.state / ANSWERS, text, durable=False)


def golden_verdicts(home: HostHome) -> Verdicts:
    """The record of `write_verdicts`, empty before the first and where it cannot be read."""
    try:
        found = json.loads((home.state / ANSWERS).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _number(home: HostHome, name: str) -> int:
    try:
        text = (home.state / name).read_text(encoding="ascii")
    except FileNotFoundError:
        return 0
    try:
        return int(text)
    except ValueError:
        raise HostRefusal(
            "state", f"{home.state / name} holds no number: {text[:40]!r}; mend it by hand"
        ) from None
