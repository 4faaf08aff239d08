"""One release of a model at a time: a lock that the kernel takes back when its holder dies."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from conf.errors import LockgateError
from conf.user import user_name

LOCKS = ".locks"


class ReleaseLocked(LockgateError, RuntimeError):
    """Another process is releasing this model; the message has its user, host and start."""


@contextmanager
def release_lock(store: Path, model: str, run: str) -> Iterator[None]:
    """Hold `<store>/.locks/<model>`; raises ReleaseLocked at once when another process holds it.

    The file names the holder, for people; the lock is the flock on it, so a killed release leaves
    none behind.
    """
    path = Path(store) / LOCKS / model
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ReleaseLocked(
                f"{model} is being released by {_holder(file.read())}. Wait for it."
            ) from None
        file.truncate(0)
        file.write(json.dumps(_me(run)) + "\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _me(run: str) -> dict[str, object]:
    since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "user": user_name(os.geteuid()),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "run": run,
        "since": since,
    }


def _holder(text: str) -> str:
    try:
        holder = json.loads(text)
        user = f"{holder['user']}@{holder['host']}"
        return f"{user} (pid {holder['pid']}, run {holder['run']}) since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "a release that has just begun"
