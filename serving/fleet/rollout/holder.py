"""The holder of the fleet as a file, and the signs that it lives. No two clocks are compared.

A holder counts its renewals; whoever waits watches that number on its own monotonic clock. A
process of this boot that is no more needs no watching.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from serving.artifact.durable import replace_file

LEASE = "lease.json"


@dataclass(frozen=True)
class Holder:
    """The holder of the fleet.

    `renewed` counts its renewals, the sign of its life. `since` is Unix seconds by its own clock,
    for people only. `pid` counts in `boot` (and its process namespace); `start` distinguishes a
    process from a later one of the same number. `fence` is the number that hosts compare. `reason`
    is a person's, of a lock without a process; empty for a controller.
    """

    token: str
    who: str
    what: str
    boot: str
    pid: int
    start: str
    since: float
    renewed: int
    ttl_s: float
    fence: int = 0
    reason: str = ""


@dataclass(frozen=True)
class LeaseSign:
    """The lease file's content, and since when (`time.monotonic()` here) it has stood like that."""

    content: bytes | None
    since: float

    def after(self, content: bytes | None, now: float) -> LeaseSign:
        """The sign at `now`, when the file has `content`."""
        return self if content == self.content else LeaseSign(content, now)


def free(holder: Holder | None, still_s: float, boot: str, alive: bool) -> bool:
    """True when the lease may be taken.

    `still_s`: seconds that we watched its number stand still; `alive`: its process of this boot
    still runs. A lock that a person set is never free.
    """
    if holder is None:
        return True
    if holder.reason:
        return False
    return (holder.boot == boot and not alive) or still_s > holder.ttl_s


def holder_in(content: bytes | None, ttl_s: float) -> Holder | None:
    """The holder in a lease file's content; None where there is no file.

    A file that is no lease is a holder that nobody knows, dead when it stands still for `ttl_s`.
    """
    if content is None:
        return None
    try:
        return _strict(json.loads(content.decode("utf-8")))
    except (ValueError, TypeError, KeyError, RecursionError):
        return Holder("", "somebody", "with a lease that cannot be read", "", 0, "", 0.0, 0, ttl_s)


def read_lease(path: Path) -> bytes | None:
    """The content of the lease file, None where there is none. Raises OSError."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def write_lease(path: Path, holder: Holder) -> None:
    """Put `holder` into the lease file, whole."""
    # Not durable: a lease that a power cut swallowed belonged to a controller that is gone too.
    replace_file(path, json.dumps(asdict(holder)), durable=bool(holder.reason))


def is_alive(holder: Holder) -> bool:
    """True unless the holder's process, of this boot, is certainly no more."""
    if holder.pid <= 0:
        return False
    start = process_start(holder.pid)
    if start is None:
        return _exists(holder.pid)  # /proc may hide the processes of others
    return start == holder.start


def this_boot() -> str:
    """The boot and the process namespace in which our process numbers count."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def process_start(pid: int) -> str | None:
    """The start of process `pid` in clock ticks since boot; empty for one that has ended, None for
    one that cannot be seen."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rsplit(")", 1)[1].split()
    return "" if fields[0] == "Z" else fields[19]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _strict(content: object) -> Holder:
    """Raises ValueError or TypeError for content that is no holder."""
    if not isinstance(content, dict):
        raise ValueError("not an object")
    holder = Holder(**content)
    texts = (holder.token, holder.who, holder.what, holder.boot, holder.start, holder.reason)
    numbers = (holder.pid, holder.renewed, holder.fence, holder.since, holder.ttl_s)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a field is not a text")
    if not all(isinstance(number, int | float) for number in numbers):
        raise ValueError("a field is not a number")
    if not 0 <= holder.ttl_s < float("inf"):
        raise ValueError("its time to live is no time")
    return holder
