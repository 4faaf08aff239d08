"""One host, from the version it serves to the next and back: the order that loses no request.

drain, finish what is in flight, load, check the golden examples, persist for a restart, give
back, watch. Each step may be run again after a crash; it then finds its work done.
"""

from __future__ import annotations

from collections.abc import Callable

from serving.fleet.errors import FleetError
from serving.fleet.haproxy.edge import READY
from serving.fleet.inventory import Host
from serving.fleet.rollout.driver import FleetDriver
from serving.fleet.rollout.records import Before
from serving.fleet.rollout.rollout_plan import Change
from serving.fleet.shipment import Shipment
from serving.triton import model_config

LogStep = Callable[[Host, str, str], None]
"""`log_step(host, step, detail)`: journals and shows a step; raises when we may not go on."""


class Unhealthy(FleetError):
    """A host failed requests after it was given back to clients."""


def activate(
    driver: FleetDriver,
    change: Change,
    shipment: Shipment,
    strategy: str,
    max_errors: int,
    rollback: bool,
    log_step: LogStep,
) -> None:
    """Bring one host to `change.versions`. Raises FleetError; the host is then as far as it got."""
    host, versions = change.host, change.versions
    alone = not driver.peers_up(host)
    down = not driver.read_host(host).alive
    if change.before.edge == READY and alone and strategy == "restart" and not down:
        raise FleetError(
            f"{host.name} is the last host of {host.region} that takes traffic: its Triton will "
            "not be restarted. Bring another host up, or use --set rollout.strategy=load."
        )
    if alone and not down:
        # Loading beside a version that serves loses nothing either; it only costs latency.
        log_step(host, "keep", "last host of its region: loads without being drained")
    else:
        log_step(host, "drain", "")
        driver.drain(host)
    log_step(host, "install", str(shipment))
    driver.install(host, shipment)
    if down or (strategy == "restart" and not alone):
        log_step(host, "restart", "Triton, in maintenance at the edge")
        driver.set_maintenance(host)
        driver.persist(host, versions, rollback)
        driver.restart(host)
    log_step(host, "load", _list(versions))
    driver.serve(host, versions, rollback)
    log_step(host, "check", "")
    log_step(host, "checked", driver.check_golden(host, shipment.version))
    driver.persist(host, versions, rollback)
    if change.before.edge != READY:
        driver.set_edge(host, change.before.edge)
        log_step(host, "keep", f"left in {change.before.edge}, as it was before")
        return
    log_step(host, "undrain", "")
    driver.set_edge(host, READY)
    traffic = driver.watch(host)
    if traffic.errors > max_errors:
        raise Unhealthy(
            f"{host.name} failed {traffic.errors} of {traffic.requests} requests after it was "
            f"given {shipment} and traffic (rollout.max_errors is {max_errors})."
        )
    seen = f"{traffic.requests} requests, {traffic.errors} failed"
    # No traffic is no evidence; the golden examples are the host's check.
    log_step(host, "healthy", seen if traffic.requests else "no traffic yet; golden examples only")


def restore(driver: FleetDriver, host: Host, before: Before, log_step: LogStep) -> None:
    """Bring one host back to what it was. Raises FleetError; the host may then be out of traffic.

    What already is as before stays untouched. The versions before may be older than the one that
    is undone: each change is a rollback.
    """
    state = driver.read_host(host)
    if state.problem:
        raise FleetError(state.problem)
    try:
        persisted = model_config.versions_in(before.config)
        same = state.serving == before.served and model_config.same_config(
            state.config, before.config
        )
    except model_config.ModelConfigError as error:
        raise FleetError(f"{host.name}: {error}") from error
    if same and state.alive:
        if state.edge != before.edge:
            log_step(host, "undrain", f"{before.edge} again")
            driver.set_edge(host, before.edge)
        return
    if state.edge == READY and driver.peers_up(host):
        log_step(host, "drain", "to undo")
        driver.drain(host)
    log_step(host, "undo", f"back to {_list(before.served)}")
    driver.persist(host, persisted, rollback=True)
    if not state.alive:
        driver.set_maintenance(host)
        driver.restart(host)
    if before.served:
        driver.serve(host, before.served, rollback=True)
        log_step(host, "checked", driver.check_golden(host, max(before.served)))
    else:
        driver.withdraw(host)
    driver.set_edge(host, before.edge)
    log_step(host, "undone", f"serves {_list(before.served)}, edge {before.edge}")


def _list(versions: tuple[int, ...]) -> str:
    return " and ".join(str(version) for version in versions) if versions else "nothing"
