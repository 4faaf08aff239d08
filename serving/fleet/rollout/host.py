"""One host, from the versions it serves to the next: the orders of steps that lose no request.

`prepare` loads a version beside those that serve: nothing of it is given to clients, because the
edge's map names another, so nothing is drained. `activate` is for a version that cannot lie beside
the one before: drain, load, check, give back, watch. Each step may be run again after a crash; it
then finds its work done.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from serving.fleet.errors import FleetError, StuckVersion
from serving.fleet.haproxy.edge import READY
from serving.fleet.inventory import Host
from serving.fleet.rollout.driver import HostState
from serving.fleet.rollout.instances import instances_text
from serving.fleet.rollout.rollout_plan import Change, version_names
from serving.fleet.rollout.rollout_run import RolloutRun
from serving.triton.model_config import instances_in

_GLANCE_S = 0.1


class Unhealthy(FleetError):
    """A host failed requests after it was given back to clients."""


def prepare(run: RolloutRun, change: Change, beside: Iterable[int]) -> None:
    """Load the version beside what the host serves, and prove it and those of `beside` there.

    One of `beside` that does not answer rightly is restarted with its Triton, drained: it must be
    a way back. What is persisted stays as it was, also where Triton is restarted: it is what a
    crash would start and what the host's own watch holds it to, and a version on trial must take
    no host down. Raises FleetError; the host is then as far as it got.
    """
    host, driver, versions = change.host, run.driver, change.prepared
    others = tuple(v for v in beside if v in versions and v != run.shipment.version)
    state = read(run, host)
    lacks = run.shipment.version not in state.serving
    fresh = change.restart or not state.alive or (run.config.strategy == "restart" and lacks)
    run.log_step(host, "install", str(run.shipment))
    driver.install(host, run.shipment)
    count_instances(run, host, state)
    if fresh:
        restart(run, change)
    run.log_step(host, "load", version_names(versions))
    try:
        await_quiet(run, host)
        driver.serve(host, versions, run.rollback)
    except StuckVersion as error:
        run.log_step(host, "stuck", str(error))
        restart(run, change, versions)
    prove(run, host, (run.shipment.version,))
    try:
        prove(run, host, others)
    except FleetError as error:
        if fresh:
            raise
        run.log_step(host, "failed", str(error))
        restart(run, change, versions)
        prove(run, host, (run.shipment.version, *others))
    run.record_proven(host, tuple(sorted((run.shipment.version, *others))))
    if not change.parked:
        give_back(run, host, change.before.edge)


def activate(run: RolloutRun, change: Change) -> None:
    """Bring one host to `change.versions`, out of traffic while it is changed. Raises FleetError;
    the host is then as far as it got."""
    host, driver, versions = change.host, run.driver, change.versions
    alone = not driver.peers_up(host)
    state = read(run, host)
    down = not state.alive
    strategy = run.config.strategy
    if change.before.edge == READY and alone and strategy == "restart" and not down:
        raise FleetError(_last_host(host))
    if alone and not down:
        # Loading beside a version that serves loses nothing either; it only costs latency.
        run.log_step(host, "keep", "last host of its region: loads without being drained")
    else:
        run.log_step(host, "drain")
        driver.drain(host)
    run.log_step(host, "install", str(run.shipment))
    driver.install(host, run.shipment)
    count_instances(run, host, state)
    if down or change.restart or (strategy == "restart" and not alone):
        run.log_step(host, "restart", "Triton, in maintenance at the edge")
        driver.set_maintenance(host)
        if down:  # perhaps by what it starts with, and there is nothing that it could lose
            driver.persist(host, versions, run.rollback)
        driver.restart(host)
    run.log_step(host, "load", version_names(versions))
    driver.serve(host, versions, run.rollback)
    prove(run, host, (run.shipment.version,))
    driver.persist(host, versions, run.rollback)
    run.record_proven(host, (run.shipment.version,))
    give_back(run, host, change.before.edge)
    if change.before.edge != READY:
        return
    traffic = driver.watch(host)
    if traffic.errors > run.config.max_errors:
        raise Unhealthy(
            f"{host.name} failed {traffic.errors} of {traffic.requests} requests after it was "
            f"given {run.shipment} and traffic (rollout.max_errors is {run.config.max_errors})."
        )
    seen = f"{traffic.requests} requests, {traffic.errors} failed"
    # No traffic is no evidence; the golden examples are the host's check.
    detail = seen if traffic.requests else "no traffic yet; golden examples only"
    run.log_step(host, "healthy", detail)


def count_instances(run: RolloutRun, host: Host, state: HostState) -> None:
    """Have a host, read as `state`, load the model with the number of instances that `fab scale`
    ordered last: one that is new to the fleet, or was out of it meanwhile, has another. It has it
    from the next load or restart on; nothing is loaded here. Raises FleetError."""
    ordered = run.journal.instances(run.shipment.model)
    count = ordered or instances_in(run.shipment.config)
    if state.max_instances is None or state.instances == count:
        return
    run.log_step(host, "scale", f"{instances_text(count, run.shipment.model)} from its next load")
    run.driver.scale(host, ordered)


def restart(run: RolloutRun, change: Change, versions: tuple[int, ...] = ()) -> None:
    """Restart the Triton of a host, out of traffic, and have it serve `versions`; without any it
    serves what is persisted. The host stays in maintenance.

    Raises FleetError, without a change, for the last host of its region that takes traffic.
    """
    host, driver = change.host, run.driver
    take_out(run, change)
    run.log_step(host, "restart", "Triton, in maintenance at the edge")
    driver.set_maintenance(host)
    driver.restart(host)
    if versions:
        driver.serve(host, versions, rollback=True)


def take_out(run: RolloutRun, change: Change) -> None:
    """Drain a host. Raises FleetError for the last one of its region that takes traffic."""
    host, driver = change.host, run.driver
    in_traffic = change.before.edge == READY and not change.parked
    run.log_step(host, "drain")
    with run.draining:  # of two hosts of a region, one sees that the other is gone
        alone = in_traffic and not change.useless and not driver.peers_up(host)
        if alone and read(run, host).alive:
            raise FleetError(_last_host(host))
        driver.drain(host)


def prove(run: RolloutRun, host: Host, versions: Iterable[int]) -> None:
    """Put the golden questions to each of `versions`. Raises FleetError."""
    for version in versions:
        run.log_step(host, "check", str(version))
        run.log_step(host, "checked", run.driver.check_golden(host, version))


def give_back(run: RolloutRun, host: Host, edge: str) -> None:
    """Give the host the state at its edge that it had."""
    if read(run, host).edge == edge:
        return
    run.log_step(host, "undrain" if edge == READY else "keep", f"{edge} at the edge, as before")
    run.driver.set_edge(host, edge)


def read(run: RolloutRun, host: Host) -> HostState:
    """The host as it is. Raises FleetError where it cannot be read."""
    state = run.driver.read_host(host)
    if state.problem:
        raise FleetError(state.problem)
    return state


def await_quiet(run: RolloutRun, host: Host) -> HostState:
    """The host once no version is LOADING or UNLOADING. Raises StuckVersion, FleetError.

    A load whose SSH broke off goes on in Triton: what is read before its end is not what stays.
    """
    began = shown = time.monotonic()
    while True:
        state = read(run, host)
        moving = [(v, why) for v, why in state.unready if why.startswith(("LOADING", "UNLOADING"))]
        if not state.work and (not moving or not state.alive):
            return state
        waited = time.monotonic() - began
        loading = state.work or any(why.startswith("LOADING") for _, why in moving)
        limit = run.fleet.load_timeout_s if loading else run.config.unload_timeout_s
        names = ", ".join(f"{run.shipment.model}/{v} {why}" for v, why in moving) or state.work
        if waited > limit:
            raise StuckVersion(f"{host.name}: {names} for {waited:.0f} s.")
        if time.monotonic() - shown > 5:
            shown = time.monotonic()
            run.progress(host.name, "wait", f"{names}, up to {limit:g} s")
        run.lease.check()
        time.sleep(_GLANCE_S)


def _last_host(host: Host) -> str:
    return (
        f"{host.name} is the last host of {host.region} that takes traffic: its Triton will "
        "not be restarted. Bring another host up, or use --set rollout.strategy=load."
    )
