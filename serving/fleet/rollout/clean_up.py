"""After the commit: versions that are not needed any more leave the hosts, as far as they will."""

from __future__ import annotations

from collections.abc import Sequence

from serving.fleet.errors import FleetError, StuckVersion
from serving.fleet.haproxy.edge import READY
from serving.fleet.inventory import Host
from serving.fleet.rollout.host import await_quiet, give_back, prove, read, restart
from serving.fleet.rollout.lease import LeaseLost
from serving.fleet.rollout.rollout_plan import Change, as_it_is
from serving.fleet.rollout.rollout_run import RolloutRun


def clean_up(
    run: RolloutRun, hosts: Sequence[tuple[Host, tuple[int, ...]]], skipped: dict[str, str]
) -> None:
    """Have every host serve exactly its versions; `skipped` gets a sentence for each that does not.

    Raises LeaseLost, and nothing for a host: the version is served, and what stays on one is a
    matter for the next rollout.
    """
    by_host = dict(hosts)

    def clean(host: Host) -> None:
        try:
            clean_host(run, host, by_host[host])
        except LeaseLost:
            raise
        except FleetError as error:
            run.progress(host.name, "clean", f"skipped: {error}")
            skipped[host.name] = str(error)

    run.each(list(by_host), clean, run.config.parallel)


def clean_host(run: RolloutRun, host: Host, versions: tuple[int, ...]) -> None:
    """Have one host serve exactly `versions`, its Triton restarted where one will not unload.

    Raises FleetError.
    """
    if read(run, host).serving != versions:
        run.log_step(host, "clean", f"keeps {', '.join(map(str, versions))}")
        run.driver.persist(host, versions, rollback=True)
        try:
            run.driver.serve(host, versions, rollback=True)
        except StuckVersion as error:
            _restart_clean(run, host, versions, str(error))
        except FleetError as error:
            _await_versions(run, host, versions, error)
    run.driver.persist(host, versions, rollback=True)
    run.driver.prune(host, versions, run.shipment.version)


def _await_versions(
    run: RolloutRun, host: Host, versions: tuple[int, ...], error: FleetError
) -> None:
    """The host as it is when Triton is done: raises `error` where it still serves others."""
    try:
        state = await_quiet(run, host)
    except StuckVersion as stuck:
        _restart_clean(run, host, versions, str(stuck))
        return
    if state.serving != versions:
        raise error


def _restart_clean(run: RolloutRun, host: Host, versions: tuple[int, ...], why: str) -> None:
    before = as_it_is(read(run, host))
    run.log_step(host, "stuck", why)
    if before.edge == READY and not run.driver.peers_up(host):
        raise FleetError(f"{why} It is the last host of {host.region}, and is not restarted.")
    run.record("parked", host=host.name, edge=before.edge)
    restart(run, Change(host, before, versions, why, versions), versions)
    prove(run, host, versions)
    run.record_proven(host, versions)
    give_back(run, host, before.edge)
