"""One host back to what it was before a rollout touched it."""

from __future__ import annotations

from serving.fleet.errors import FleetError, StuckVersion
from serving.fleet.haproxy.edge import READY
from serving.fleet.inventory import Host
from serving.fleet.rollout.host import (
    await_quiet,
    give_back,
    prove,
    restart,
)
from serving.fleet.rollout.records import Before
from serving.fleet.rollout.rollout_plan import Change, version_names
from serving.fleet.rollout.rollout_run import RolloutRun
from serving.triton import model_config


def restore(
    run: RolloutRun, host: Host, before: Before, drained: bool, base: int | None = None
) -> None:
    """Bring one host back to what it was. Raises FleetError; it may then be out of traffic.

    Each one is set back and proven, also where it reads as before: a load that was ordered may
    begin after the reading. `drained` where a version that serves clients has to change; `base` is
    the one that the edges give. A version that will not unload ends with a restart of Triton.
    """
    try:
        persisted = model_config.versions_in(before.config)
    except model_config.ModelConfigError as error:
        raise FleetError(f"{host.name}: {error}") from error
    change = Change(host, before, before.served, "", before.served)
    stuck = ""
    try:
        state = await_quiet(run, host)
    except StuckVersion as error:
        stuck = str(error)
        state = run.driver.read_host(host)
    same = state.serving == before.served and state.alive and not stuck
    if drained and not same and state.edge == READY and run.driver.peers_up(host):
        run.log_step(host, "drain", "to undo")
        run.driver.drain(host)
    run.log_step(host, "undo", f"back to {version_names(before.served)}")
    run.driver.persist(host, persisted, rollback=True)
    if stuck or not state.alive:
        run.log_step(host, "stuck", stuck or "its Triton does not answer")
        restart(run, change, persisted)
    try:
        _serve(run, host, before.served)
    except StuckVersion as error:
        run.log_step(host, "stuck", str(error))
        restart(run, change, persisted)
        _serve(run, host, before.served)
    if before.served:
        proven = base if base in before.served else max(before.served)
        prove(run, host, (proven,))
        run.record_proven(host, (proven,))
    give_back(run, host, before.edge)
    detail = f"serves {version_names(before.served)}, edge {before.edge}"
    run.log_step(host, "undone", detail)


def _serve(run: RolloutRun, host: Host, versions: tuple[int, ...]) -> None:
    """Exactly `versions` ready. Raises StuckVersion where one will not go, FleetError."""
    try:
        if versions:
            run.driver.serve(host, versions, rollback=True)
        else:
            run.driver.withdraw(host)
    except StuckVersion:
        raise
    except FleetError as error:
        await_quiet(run, host)
        state = run.driver.read_host(host)
        if state.problem or state.serving != versions:
            raise error
