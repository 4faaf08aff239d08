"""One rollout while it runs: the fleet, its journal and its lease, and the work on many hosts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, TypeVar

from serving.fleet.errors import FleetError
from serving.fleet.inventory import Fleet, Host
from serving.fleet.rollout.driver import FleetDriver
from serving.fleet.rollout.journal import Journal
from serving.fleet.rollout.lease import Lease, LeaseLost
from serving.fleet.rollout.rollout_config import RolloutConfig
from serving.fleet.shipment import Shipment

Progress = Callable[[str, str, str], None]
"""`progress(host, step, detail)` shows a step to the person at the keyboard."""
Item = TypeVar("Item")


class Abandoned(BaseException):
    """A second Ctrl-C: nothing more is begun, and nothing is undone."""


class Stopping(FleetError):
    """Work on one host that is given up because the whole rollout stops."""


@dataclass(frozen=True)
class RolloutRun:
    """A rollout of `shipment`; `rollout` is its id, `action` deploy, rollback or heal.

    `rollback` lets the version be older than the highest that a host accepted. `outside` are hosts
    that `fleet` lacks because the model is not placed on them.
    """

    fleet: Fleet
    driver: FleetDriver
    journal: Journal
    lease: Lease
    rollout: str
    action: str
    shipment: Shipment
    config: RolloutConfig
    progress: Progress
    rollback: bool = False
    outside: tuple[Host, ...] = ()
    stopping: threading.Event = field(default_factory=threading.Event)
    draining: threading.RLock = field(default_factory=threading.RLock)

    def record(self, event: str, **content: Any) -> None:
        """Append an event of this rollout to the journal."""
        about = {"model": self.shipment.model, "version": self.shipment.version}
        self.journal.record(event, self.rollout, **about, **content)

    def log_step(self, host: Host, step: str, detail: str = "") -> None:
        """Journal and show a step. Raises LeaseLost, Stopping where it may not be begun."""
        if self.stopping.is_set():
            raise Stopping(f"{host.name}: stopped before {step}.")
        self.lease.check()
        self.record("step", host=host.name, step=step, detail=detail)
        self.progress(host.name, step, detail)

    def record_proven(self, host: Host, versions: tuple[int, ...]) -> None:
        """Journal the versions that answer golden questions on the host: warm ways to go."""
        self.record("proven", host=host.name, versions=list(versions))

    def commit(self, previous: int | None, reason: str) -> None:
        """Enter the version into the ledger: from here on it is production, and not undone."""
        self.lease.check()
        self.journal.enter(
            "rollback" if self.action == "rollback" else "deploy", self.rollout,
            model=self.shipment.model, version=self.shipment.version,
            digest=self.shipment.digest, previous=previous, reason=reason,
        )  # fmt: skip

    def each(self, items: Iterable[Item], act: Callable[[Item], None], limit: int) -> None:
        """Do `act` on every item, `limit` at a time; waits for all, then raises the first failure.

        LeaseLost comes before any other: who lost the fleet undoes nothing. Ctrl-C lets running
        work come to its next step and no further; raises Abandoned at the second one.
        """
        listed = list(items)
        if len(listed) == 1:
            # In this thread: an interrupt reaches the work itself.
            act(listed[0])
            return
        pool = ThreadPoolExecutor(max_workers=max(min(limit, len(listed)), 1))
        futures: list[Future[None]] = [pool.submit(act, item) for item in listed]
        try:
            wait(futures)
        except KeyboardInterrupt:
            self.stopping.set()
            for future in futures:
                future.cancel()
            self.progress("fleet", "stop", "at the next step of each host; Ctrl-C again leaves all")
            try:
                wait([future for future in futures if not future.cancelled()])
            except KeyboardInterrupt as second:
                raise Abandoned from second
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
            self.stopping.clear()
            raise
        pool.shutdown(wait=False)
        errors = [error for future in futures if (error := future.exception())]
        for error in sorted(errors, key=lambda error: not isinstance(error, LeaseLost)):
            raise error

    def pause_s(self, seconds: float, poll: Callable[[], None] | None = None) -> None:
        """Let `seconds` pass with the lease held, and `poll` called now and then."""
        deadline = time.monotonic() + seconds
        while True:
            self.lease.check()
            if poll is not None:
                poll()
            left = deadline - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.5))
