"""One controller at a time: a lease on the fleet that outlives a killed controller only so long.

The lease is a file with its holder, renewed by a thread while the holder works. Another
controller takes it over when it ran out, or at once when the holder was a process of this very
machine (same boot) that is no more. A holder that lost its lease finds out before its next step.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from conf.errors import INCOMPLETE
from serving.artifact.durable import replace_file
from serving.fleet.errors import FleetError
from serving.fleet.rollout.journal import operator

LEASE = "lease.json"


class Locked(FleetError):
    """Another controller is at work on the fleet; the message has its holder and since when."""


class LeaseLost(FleetError):
    """Another controller has taken over: this one must not touch the fleet, not even to undo."""

    exit_code = INCOMPLETE


@dataclass(frozen=True)
class Holder:
    """The holder of the fleet. Times are Unix seconds; `start` distinguishes a process
    from a later one of the same number."""

    token: str
    who: str
    what: str
    boot: str
    pid: int
    start: str
    since: float
    renewed: float
    ttl_s: float


def free(holder: Holder | None, now: float, boot: str, alive: bool) -> bool:
    """True when the lease may be taken; `alive`: the holder's process of this boot still runs."""
    if holder is None or now - holder.renewed > holder.ttl_s:
        return True
    return holder.boot == boot and not alive


@dataclass
class Lease:
    """A held lease. `check` before every step; it is given back by `hold`."""

    path: Path
    holder: Holder
    fence: int = 0
    took_over: Holder | None = None
    lost: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Raises LeaseLost when another controller has taken over."""
        current = None if self.lost.is_set() else _read(self.path)
        if current is None or current.token != self.holder.token:
            self.lost.set()
            raise LeaseLost(
                "another controller has taken over this fleet; this one stopped where it was and "
                "left the rest to it. See fab status."
            )

    def renew(self) -> None:
        """Put the end of the lease off by its time to live. Raises LeaseLost."""
        with _exclusive(self.path):
            self.check()
            _write(self.path, Holder(**{**asdict(self.holder), "renewed": time.time()}))


@contextmanager
def hold(folder: Path, what: str, ttl_s: float) -> Iterator[Lease]:
    """Hold the fleet while the block runs. Raises Locked.

    `what` is shown to a second controller. The lease is renewed every third of `ttl_s`.
    """
    path = folder / LEASE
    folder.mkdir(parents=True, exist_ok=True)
    now = time.time()
    mine = Holder(
        secrets.token_hex(8),
        operator(),
        what,
        _boot(),
        os.getpid(),
        _start(os.getpid()),
        now,
        now,
        ttl_s,
    )
    with _exclusive(path):
        current = _read(path)
        running = current is not None and _start(current.pid) == current.start
        if current and not free(current, now, mine.boot, running):
            raise Locked(
                f"{current.who} is at work on this fleet since "
                f"{time.strftime('%H:%M:%S UTC', time.gmtime(current.since))} ({current.what}, "
                f"process {current.pid}). Wait for it; a dead one loses its lock after "
                f"{current.ttl_s:g} s."
            )
        _write(path, mine)
    lease = Lease(path, mine, took_over=current)
    stop = threading.Event()
    thread = threading.Thread(target=_keep, args=(lease, stop, ttl_s / 3), daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        stop.set()
        thread.join()
        with _exclusive(path):
            current = _read(path)
            if current and current.token == mine.token:
                path.unlink()


def _keep(lease: Lease, stop: threading.Event, every_s: float) -> None:
    while not stop.wait(every_s):
        try:
            lease.renew()
        except LeaseLost:
            return  # `check` raises it to the worker, before its next step


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    handle = os.open(path.with_suffix(".guard"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _read(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise Locked(f"{path} cannot be read ({error}); remove it if no fab is running.") from error


def _write(path: Path, holder: Holder) -> None:
    # Not durable: a lease that a power cut swallowed belonged to a controller that is gone too.
    replace_file(path, json.dumps(asdict(holder)), durable=False)


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _start(pid: int) -> str:
    """The start of process `pid` in clock ticks since boot; empty for one that is no more."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = stat.rsplit(")", 1)[1].split()
    return "" if fields[0] == "Z" else fields[19]
