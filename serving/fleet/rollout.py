"""A plan walked through the fleet: stage everywhere, canary, waves; at the first failure, all back.

Nothing is remembered between steps but the journal's `before` of each host, written before the
host is touched. A controller that was killed is continued by running the rollout again: the plan
is made from the world as it is, and an undo goes back to before the *first* try.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Literal

from serving.fleet.activate import activate, restore
from serving.fleet.inventory import Fleet, FleetError, Host
from serving.fleet.journal import Before, Journal
from serving.fleet.lease import Lease, LeaseLost
from serving.fleet.plan import Plan
from serving.fleet.world import World

Say = Callable[[str, str, str], None]
"""`say(host, step, detail)` shows a step to the person at the keyboard."""


@dataclass(frozen=True)
class RolloutConfig:
    """The `rollout` section of conf/rollout.yaml; each key is explained there."""

    strategy: Literal["load", "restart"] = "load"
    parallel: int = 2
    transfer_limit_kib_s: int = 0
    keep_versions: int = 3
    free_disk_mib: int = 512
    free_shm_mib: int = 64
    drain_timeout_s: float = 60
    ready_timeout_s: float = 120
    warm_up: int = 3
    settle_s: float = 3.0
    max_errors: int = 0
    lock_ttl_s: float = 120

    def __post_init__(self) -> None:
        if self.strategy not in ("load", "restart"):
            raise FleetError(f"rollout.strategy is {self.strategy!r}; choose load or restart.")
        for name in ("parallel", "drain_timeout_s", "ready_timeout_s", "lock_ttl_s"):
            if getattr(self, name) <= 0:
                raise FleetError(f"rollout.{name} must be above 0.")
        for name in ("transfer_limit_kib_s", "keep_versions", "free_disk_mib", "free_shm_mib",
                     "warm_up", "settle_s", "max_errors"):  # fmt: skip
            if getattr(self, name) < 0:
                raise FleetError(f"rollout.{name} must not be negative.")


@dataclass(frozen=True)
class Outcome:
    """How a rollout ended. `kind`:

    unchanged: nothing was to do. done: every host serves the version. refused: a host did not take
    the package; nothing was activated. rolled-back: a host failed; all are as before.
    needs-a-person: a host could not be brought back; `stuck` names each with the reason, it gets no
    traffic it cannot answer, and the next run tries again.
    """

    kind: Literal["unchanged", "done", "refused", "rolled-back", "needs-a-person"]
    reason: str = ""
    stuck: dict[str, str] = field(default_factory=dict)


class Interrupted(FleetError):
    """The person, or a signal, asked to stop."""


def roll(
    fleet: Fleet,
    plan: Plan,
    world: World,
    journal: Journal,
    lease: Lease,
    rollout: str,
    config: RolloutConfig,
    say: Say,
) -> Outcome:
    """Carry out `plan`. Raises LeaseLost, and nothing else for what the fleet does.

    `rollout` is the new rollout's id in the journal. Hosts of one wave are changed at the same
    time; a failure waits for its wave, then everything this rollout (and the unfinished one it
    continues) touched is undone, last host first.
    """
    model, shipment = plan.shipment.model, plan.shipment
    about: dict[str, Any] = {"model": model, "version": shipment.version}

    def note(host: Host, step: str, detail: str) -> None:
        lease.check()
        journal.record("step", rollout, **about, host=host.name, step=step, detail=detail)
        say(host.name, step, detail)

    if not plan.changes and plan.resumes is None:
        return Outcome("unchanged", f"every host already serves {shipment}")
    journal.record(
        "started", rollout, **about, digest=shipment.digest, strategy=config.strategy,
        resumes=plan.resumes, waves=[[c.host.name for c in wave] for wave in plan.waves],
    )  # fmt: skip
    touched: dict[str, Before] = dict(plan.inherited)
    begun = bool(touched)
    try:
        _all(
            [change.host for change in plan.changes],
            lambda host: note(host, "staged", world.stage(host, shipment)),
            limit=max(config.parallel, 1),
        )
        for wave in plan.waves:
            for change in wave:
                lease.check()
                journal.record(
                    "before", rollout, **about, host=change.host.name,
                    before=change.before.as_json(), versions=list(change.versions),
                )  # fmt: skip
                touched.setdefault(change.host.name, change.before)
                begun = True
            by_host = {change.host: change for change in wave}
            _all(
                list(by_host),
                lambda host, by_host=by_host: activate(  # type: ignore[misc]
                    world, by_host[host], shipment, config.strategy, config.max_errors, note
                ),
                limit=len(wave),
            )
    except LeaseLost:
        raise
    except (FleetError, KeyboardInterrupt) as error:
        reason = str(error) or "interrupted at the keyboard"
        if not begun:
            journal.record("refused", rollout, **about, reason=reason)
            return Outcome("refused", reason)
        return _undo(fleet, world, journal, rollout, about, touched, reason, note)
    except Exception as error:
        # A defect of ours is no reason to leave a fleet half changed.
        reason = f"unexpected {type(error).__name__}: {error}"
        _undo(fleet, world, journal, rollout, about, touched, reason, note)
        raise
    journal.record("done", rollout, **about, digest=shipment.digest)
    for change in plan.changes:
        _tidy(world, change.host, change.versions, say)
    return Outcome("done")


def _undo(
    fleet: Fleet,
    world: World,
    journal: Journal,
    rollout: str,
    about: dict[str, Any],
    touched: dict[str, Before],
    reason: str,
    note: Callable[[Host, str, str], None],
) -> Outcome:
    journal.record("undoing", rollout, **about, reason=reason, hosts=list(touched))
    stuck: dict[str, str] = {}
    for name, before in reversed(touched.items()):
        host = fleet.host(name)
        try:
            restore(world, host, before, note)
        except LeaseLost:
            raise
        except FleetError as error:
            # The other hosts are still to be brought back; this one is named at the end.
            stuck[name] = str(error)
    if stuck:
        journal.record("needs-a-person", rollout, **about, reason=reason, stuck=stuck)
        return Outcome("needs-a-person", reason, stuck)
    journal.record("rolled-back", rollout, **about, reason=reason)
    return Outcome("rolled-back", reason)


def _all(hosts: list[Host], act: Callable[[Host], None], limit: int) -> None:
    """Do `act` on every host, `limit` at a time; waits for all, then raises the first failure."""
    if len(hosts) == 1:
        # In this thread: an interrupt reaches the work itself.
        act(hosts[0])
        return
    with ThreadPoolExecutor(max_workers=max(limit, 1)) as pool:
        futures: list[Future[None]] = [pool.submit(act, host) for host in hosts]
        try:
            wait(futures)
        except KeyboardInterrupt:
            for future in futures:
                future.cancel()
            raise
        for future in futures:
            future.result()


def _tidy(world: World, host: Host, serving: tuple[int, ...], say: Say) -> None:
    try:
        world.tidy(host, serving)
    except FleetError as error:
        # The version is served; old ones that stay on a disk are a matter for the next rollout.
        say(host.name, "tidy", f"skipped: {error}")
