"""One controller at a time: a lease on the fleet that lives by its holder's signs of life.

The lease is a file with its holder, which counts up while it works. Another controller takes over
when it has watched that number stand still for the lease's time to live, on its own monotonic
clock, or at once when the holder was a process of this boot that is no more; the wall clocks of
both decide nothing. Each hold has a higher fencing number, which the hosts compare: a holder that
lost its lease finds out before its next step, and a host refuses it if it does not.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from conf.errors import INCOMPLETE
from conf.names import shown
from serving.artifact.durable import replace_file
from serving.fleet.errors import FleetError
from serving.fleet.rollout.holder import (
    LEASE,
    Holder,
    LeaseSign,
    free,
    holder_in,
    is_alive,
    process_start,
    read_lease,
    this_boot,
    write_lease,
)
from serving.fleet.rollout.journal import Journal, operator

FENCE = "fence"
RENEW_S = 1.0
"""Seconds between two renewals at most: whoever waits sees within them that a holder lives."""
_GLANCE_S, _REPORT_S, _GUARD_S = 0.1, 10.0, 10.0


class Locked(FleetError):
    """Another controller is at work on the fleet; the message has its holder and since when."""


class LeaseLost(FleetError):
    """Another controller has taken over: this one must not touch the fleet, not even to undo."""

    exit_code = INCOMPLETE


@dataclass
class Lease:
    """A held lease. `check` before every step; it is given back by `hold`.

    `took_over` is the holder that was found dead, None after one that ended well.
    """

    path: Path
    holder: Holder
    took_over: Holder | None = None
    lost: threading.Event = field(default_factory=threading.Event)

    @property
    def fence(self) -> int:
        """The fencing number of this hold: each has a higher one than all before it."""
        return self.holder.fence

    def check(self) -> None:
        """Raises LeaseLost when another controller has taken over."""
        current = None if self.lost.is_set() else _current(self.path, self.holder.ttl_s)
        if current is None or current.token != self.holder.token:
            self.lost.set()
            raise LeaseLost(
                "another controller has taken over this fleet; this one stopped where it was and "
                "left the rest to it. See fab status."
            )

    def renew(self) -> None:
        """Show a sign of life. Raises LeaseLost."""
        with _exclusive(self.path):
            self.check()
            self.holder = replace(self.holder, renewed=self.holder.renewed + 1)
            write_lease(self.path, self.holder)


@contextmanager
def hold(
    folder: Path, what: str, ttl_s: float, waiting: Callable[[str], None] = lambda _: None
) -> Iterator[Lease]:
    """Hold the fleet while the block runs. Raises Locked.

    `what` is shown to a second controller, `waiting` gets a sentence while it is uncertain whether
    a first one lives: for `ttl_s` of its lease at most.
    """
    path = folder / LEASE
    folder.mkdir(parents=True, exist_ok=True)
    lease = _take(path, _mine(what, ttl_s), waiting)
    stop = threading.Event()
    every_s = min(ttl_s / 3, RENEW_S)
    thread = threading.Thread(target=_keep, args=(lease, stop, every_s), daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        stop.set()
        thread.join()
        with _exclusive(path):
            current = _current(path, ttl_s)
            if current and current.token == lease.holder.token:
                path.unlink()


def lock_fleet(
    journal: Journal, reason: str, ttl_s: float, waiting: Callable[[str], None] = lambda _: None
) -> Holder:
    """Keep every controller out until `unlock_fleet`; survives restarts. Raises Locked."""
    journal.folder.mkdir(parents=True, exist_ok=True)
    mine = replace(_mine("locked by hand", ttl_s), reason=reason)
    taken = _take(journal.folder / LEASE, mine, waiting).holder
    journal.record("locked", f"lock-{taken.fence}", reason=reason)
    return taken


def unlock_fleet(journal: Journal, reason: str, force: bool, ttl_s: float) -> Holder | None:
    """Lift the lock of a person, or with `force` whatever there is; returns its holder.

    None when nothing was locked. Raises Locked for a controller without `force`: one that is
    unlocked by force stops before its next step.
    """
    path = journal.folder / LEASE
    with _exclusive(path):
        current = _current(path, ttl_s)
        if current is None:
            return None
        if not current.reason and not force:
            raise Locked(
                f"{_described(current)}. That is no lock of a person: wait for it, or, when you "
                "are sure that it must stop: fab unlock --force --reason '...'"
            )
        journal.record(
            "unlocked", f"lock-{current.fence}", reason=reason, force=force,
            holder=f"{current.who}: {current.reason or current.what}",
        )  # fmt: skip
        path.unlink()
    return current


def lease_holder(folder: Path, ttl_s: float) -> str:
    """A sentence about who holds the fleet, without its end; empty for nobody."""
    current = _current(folder / LEASE, ttl_s)
    if current is None:
        return ""
    return f"{_described(current)}{f': {_plain(current.reason)}' if current.reason else ''}"


def _mine(what: str, ttl_s: float) -> Holder:
    pid = os.getpid()
    return Holder(
        secrets.token_hex(8), operator(), what, this_boot(), pid, process_start(pid) or "",
        time.time(), 0, ttl_s,
    )  # fmt: skip


def _take(path: Path, mine: Holder, waiting: Callable[[str], None]) -> Lease:
    """Put `mine` into the lease file as soon as it may be. Raises Locked."""
    began = reported = time.monotonic()
    sign: LeaseSign | None = None
    while True:
        with _exclusive(path):
            content, now = read_lease(path), time.monotonic()
            moved = sign is not None and content != sign.content
            sign = sign.after(content, now) if sign else LeaseSign(content, now)
            current = holder_in(content, mine.ttl_s)
            alive = current is not None and is_alive(current)
            if free(current, now - sign.since, mine.boot, alive):
                number = _next_fence(path.with_name(FENCE), current.fence if current else 0)
                mine = replace(mine, fence=number)
                write_lease(path, mine)
                return Lease(path, mine, took_over=current)
        if current and (moved or current.reason):
            raise Locked(_sentence(current))
        if current and now - reported >= (_REPORT_S if reported > began else 2 * RENEW_S):
            reported = now
            waiting(
                f"{_described(current)}, and has shown no sign of life for {now - began:.0f} s; "
                f"taken for dead after {current.ttl_s:g} s"
            )
        time.sleep(_GLANCE_S)


def _keep(lease: Lease, stop: threading.Event, every_s: float) -> None:
    while not stop.wait(every_s):
        try:
            lease.renew()
        except LeaseLost:
            return  # `check` raises it to the worker, before its next step
        except (OSError, Locked):
            continue  # a full disk may have room again; who waits sees the number stand still


def _next_fence(path: Path, least: int) -> int:
    """Count up the fencing number, on disk before anybody uses it."""
    try:
        last = int(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        last = 0
    except ValueError:
        raise FleetError(
            f"{path} holds no number, and hosts refuse one that is too low. Write the highest one "
            "of the hosts' state/fence into it, then try again."
        ) from None
    number = max(last, least) + 1
    replace_file(path, f"{number}\n")
    return number


def _sentence(current: Holder) -> str:
    if current.reason:
        return (
            f"{_described(current)}: {_plain(current.reason)}. To lift the lock: "
            "fab unlock --reason '...'"
        )
    return (
        f"{_described(current)}. Wait for it; a dead one loses its lock after {current.ttl_s:g} s "
        "without a sign of life."
    )


def _described(holder: Holder) -> str:
    try:
        since = time.strftime("%H:%M:%S UTC", time.gmtime(holder.since))
    except (ValueError, OverflowError, OSError):
        since = "a time that is none"
    if holder.reason:
        return f"{_plain(holder.who)} locked this fleet at {since}"
    return (
        f"{_plain(holder.who)} is at work on this fleet since {since} "
        f"({_plain(holder.what)}, process {holder.pid})"
    )


def _plain(text: str) -> str:
    """`text` where it is short and printable, else in quotes: others write the lease file too."""
    return text if text.isascii() and text.isprintable() and len(text) <= 200 else shown(text)


def _current(path: Path, ttl_s: float) -> Holder | None:
    return holder_in(read_lease(path), ttl_s)


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Alone with the lease file. Raises Locked when a process that stands still is in here."""
    guard = path.with_suffix(".guard")
    handle = os.open(guard, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline = time.monotonic() + _GUARD_S
        while not _flocked(handle):
            if time.monotonic() > deadline:
                raise Locked(
                    f"a process that stands still holds {guard}: find it with fuser {guard}, and "
                    "let it go on or end it."
                )
            time.sleep(0.02)
        yield
    finally:
        os.close(handle)


def _flocked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
