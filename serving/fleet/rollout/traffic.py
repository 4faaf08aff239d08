"""The edges' routing of one model: read, set everywhere at once, and judged step by step."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from serving.fleet.errors import FleetError, Unreachable
from serving.fleet.haproxy.edge import READY
from serving.fleet.inventory import Host
from serving.fleet.rollout.driver import FleetDriver, HostState
from serving.fleet.rollout.lease import LeaseLost
from serving.fleet.rollout.rollout_run import RolloutRun
from serving.fleet.routing import Routing


def hosts_behind(driver: FleetDriver, edge: str, hosts: tuple[Host, ...]) -> tuple[Host, ...]:
    """Those of `hosts` that stand behind the edge."""
    return tuple(host for host in hosts if edge in driver.edges_of(host))


def stable_version(routing: Routing, behind: list[HostState]) -> int | None:
    """The version that an edge gives now: by its map, else the highest of every host behind it.

    None where nothing is served, hosts differ, or no host in traffic has what the map says.
    """
    taking = [state for state in behind if state.edge == READY and state.alive and state.serving]
    if routing.version is not None:
        served = any(routing.version in state.serving for state in taking)
        return routing.version if served else None
    highest = {max(state.serving) for state in taking}
    return highest.pop() if len(highest) == 1 else None


def route_edges(run: RolloutRun, wanted: Mapping[str, Routing]) -> dict[str, str]:
    """Set every edge at once, the intent journalled before; a sentence for each that failed.

    Raises LeaseLost, and nothing for an edge: the others must not wait for it.
    """
    run.lease.check()
    for edge, routing in wanted.items():
        run.record("routed", edge=edge, routing=routing.as_json())
        run.progress(edge, "route", routing_text(routing))
    failed: dict[str, str] = {}

    def set_one(edge: str) -> None:
        try:
            run.driver.route(edge, wanted[edge])
        except LeaseLost:
            raise
        except FleetError as error:
            failed[edge] = str(error)

    if len(wanted) == 1:
        set_one(*wanted)
    elif wanted:
        # No interrupt between the edges: two that differ are worse than a second's wait.
        with ThreadPoolExecutor(max_workers=min(len(wanted), 32)) as pool:
            list(pool.map(set_one, wanted))
    return failed


def route_all(run: RolloutRun, wanted: Mapping[str, Routing]) -> None:
    """Set every edge. Raises Unreachable naming those that could not be set."""
    failed = route_edges(run, wanted)
    if failed:
        raise Unreachable(" ".join(failed.values()))


def routing_text(routing: Routing) -> str:
    """A routing for people."""
    if routing.version is None:
        return "each host's highest version"
    if routing.canary is None:
        return f"all to {routing.version}"
    return f"{routing.percent:g}% to {routing.canary}, the rest to {routing.version}"
