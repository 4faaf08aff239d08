"""A plan walked through the fleet: stage everywhere, canary, waves; at the first failure, all back.

Nothing is remembered between steps but the journal's `before` of each host, written before the
host is touched. A controller that was killed is continued by running the rollout again: the plan
is made from the fleet as it is, and an undo goes back to before the *first* try.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Literal

from conf.errors import DONE, FAILED, INCOMPLETE, INTERRUPTED, REFUSED, UNREACHABLE
from serving.fleet.errors import FleetConfigError, FleetError
from serving.fleet.inventory import Fleet, Host
from serving.fleet.rollout.driver import FleetDriver
from serving.fleet.rollout.host import activate, restore
from serving.fleet.rollout.journal import Journal
from serving.fleet.rollout.lease import Lease, LeaseLost
from serving.fleet.rollout.records import Before
from serving.fleet.rollout.rollout_plan import RolloutPlan

Progress = Callable[[str, str, str], None]
"""`progress(host, step, detail)` shows a step to the person at the keyboard."""


@dataclass(frozen=True)
class RolloutConfig:
    """The `rollout` section of conf/rollout.yaml; each key is explained there."""

    strategy: Literal["load", "restart"] = "load"
    parallel: int = 2
    transfer_limit_kib_s: int = 0
    transfer_fetches: int = 4
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
            raise FleetConfigError(
                f"rollout.strategy is {self.strategy!r}; choose load or restart."
            )
        for name in ("parallel", "drain_timeout_s", "ready_timeout_s", "lock_ttl_s"):
            if getattr(self, name) <= 0:
                raise FleetConfigError(f"rollout.{name} must be above 0.")
        for name in ("transfer_limit_kib_s", "transfer_fetches", "keep_versions", "free_disk_mib",
                     "free_shm_mib", "warm_up", "settle_s", "max_errors"):  # fmt: skip
            if getattr(self, name) < 0:
                raise FleetConfigError(f"rollout.{name} must not be negative.")


@dataclass(frozen=True)
class Outcome:
    """The end of a rollout. `kind`:

    unchanged: nothing was to do. done: every host serves the version. refused: a host did not take
    the package; nothing was activated. rolled-back: a host failed; all are as before.
    manual-intervention: a host could not be brought back; `stuck` names each with the reason, it
    gets no traffic it cannot answer, and the next run tries again. `exit_code` is one of
    `conf.errors`.
    """

    kind: Literal["unchanged", "done", "refused", "rolled-back", "manual-intervention"]
    reason: str = ""
    stuck: dict[str, str] = field(default_factory=dict)
    exit_code: int = DONE


def roll(
    fleet: Fleet,
    plan: RolloutPlan,
    driver: FleetDriver,
    journal: Journal,
    lease: Lease,
    rollout: str,
    config: RolloutConfig,
    progress: Progress,
) -> Outcome:
    """Carry out `plan`. Raises LeaseLost, and nothing else for what the fleet does.

    `rollout` is the new rollout's id in the journal. Hosts of one wave are changed at the same
    time; a failure waits for its wave, then everything this rollout (and the unfinished one it
    continues) touched is undone, last host first.
    """
    model, shipment = plan.shipment.model, plan.shipment
    about: dict[str, Any] = {"model": model, "version": shipment.version}

    def log_step(host: Host, step: str, detail: str) -> None:
        lease.check()
        journal.record("step", rollout, **about, host=host.name, step=step, detail=detail)
        progress(host.name, step, detail)

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
            lambda host: log_step(host, "staged", driver.stage(host, shipment, plan.rollback)),
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
                    driver,
                    by_host[host],
                    shipment,
                    config.strategy,
                    config.max_errors,
                    plan.rollback,
                    log_step,
                ),
                limit=len(wave),
            )
    except LeaseLost:
        raise
    except (FleetError, KeyboardInterrupt) as error:
        reason = str(error) or "interrupted at the keyboard"
        if not begun:
            journal.record("refused", rollout, **about, reason=reason)
            return Outcome("refused", reason, exit_code=_refusal_code(error))
        code = INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED
        return _undo(fleet, driver, journal, rollout, about, touched, reason, log_step, code)
    except Exception as error:
        # A defect of ours is no reason to leave a fleet half changed.
        reason = f"unexpected {type(error).__name__}: {error}"
        _undo(fleet, driver, journal, rollout, about, touched, reason, log_step, FAILED)
        raise
    journal.record("done", rollout, **about, digest=shipment.digest)
    for change in plan.changes:
        _prune(driver, change.host, change.versions, progress)
    return Outcome("done")


def _undo(
    fleet: Fleet,
    driver: FleetDriver,
    journal: Journal,
    rollout: str,
    about: dict[str, Any],
    touched: dict[str, Before],
    reason: str,
    log_step: Callable[[Host, str, str], None],
    exit_code: int,
) -> Outcome:
    """Restore every host in `touched`, last first; `exit_code` is that of a complete undo."""
    journal.record("undoing", rollout, **about, reason=reason, hosts=list(touched))
    stuck: dict[str, str] = {}
    for name, before in reversed(touched.items()):
        host = fleet.host(name)
        try:
            restore(driver, host, before, log_step)
        except LeaseLost:
            raise
        except FleetError as error:
            # The other hosts are still to be brought back; this one is named at the end.
            stuck[name] = str(error)
    if stuck:
        journal.record("manual-intervention", rollout, **about, reason=reason, stuck=stuck)
        return Outcome("manual-intervention", reason, stuck, INCOMPLETE)
    journal.record("rolled-back", rollout, **about, reason=reason)
    return Outcome("rolled-back", reason, exit_code=exit_code)


def _refusal_code(error: BaseException) -> int:
    """The exit code of a rollout that activated nothing."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    code = getattr(error, "exit_code", FAILED)
    return code if code in (REFUSED, UNREACHABLE) else FAILED


def _all(hosts: list[Host], act: Callable[[Host], None], limit: int) -> None:
    """Do `act` on every host, `limit` at a time; waits for all, then raises the first failure.

    LeaseLost comes before any other: who lost the fleet undoes nothing.
    """
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
        errors = [error for future in futures if (error := future.exception())]
        for error in sorted(errors, key=lambda error: not isinstance(error, LeaseLost)):
            raise error


def _prune(driver: FleetDriver, host: Host, serving: tuple[int, ...], progress: Progress) -> None:
    try:
        driver.prune(host, serving)
    except FleetError as error:
        # The version is served; old ones that stay on a disk are a matter for the next rollout.
        progress(host.name, "prune", f"skipped: {error}")
