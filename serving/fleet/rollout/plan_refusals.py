"""Refusals of a plan: a fleet that cannot be changed as it is, or not without an outage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from serving.fleet.errors import FleetRefusal, Unreachable
from serving.fleet.haproxy.edge import READY
from serving.fleet.inventory import Fleet, Host
from serving.fleet.rollout.driver import HostState
from serving.fleet.routing import Routing
from serving.fleet.shipment import Shipment


def refuse_unreadable(
    hosts: Sequence[Host], states: Mapping[str, HostState], routing: Mapping[str, Routing | str]
) -> None:
    """Raises Unreachable for a host or an edge that could not be read, with the way to go on."""
    problems = {host.name: states[host.name].problem for host in hosts}
    broken = {name: problem for name, problem in problems.items() if problem}
    sentences = [one for one in routing.values() if isinstance(one, str)]
    if broken:
        raise Unreachable(
            f"{' '.join(broken.values())} Nothing was changed. To go on without it: --skip "
            f"{','.join(broken)}, or fab quarantine {next(iter(broken))} --reason '...'"
        )
    if sentences:
        raise Unreachable(f"{' '.join(sentences)} Nothing was changed.")


def refuse_empty_region(
    fleet: Fleet, left_out: Mapping[str, str], states: Mapping[str, HostState]
) -> None:
    """Raises FleetRefusal where all hosts of a region that take traffic are to be left out."""
    for region in fleet.regions:
        taking = [h.name for h in region.hosts if states[h.name].edge == READY]
        if taking and all(name in left_out for name in taking):
            raise FleetRefusal(
                f"{region.name} would be left without a host: {', '.join(taking)} shall be left "
                "out. Nothing was changed. Bring another one up first: fab undrain HOST"
            )


def refuse_older(
    shipment: Shipment, changed: Sequence[Host], states: Mapping[str, HostState]
) -> None:
    """Raises FleetRefusal for a version below one that a host to be changed has accepted."""
    for host in changed:
        highest = states[host.name].highest
        if highest is not None and highest > shipment.version:
            raise FleetRefusal(
                f"{host.name} has accepted {shipment.model}/{highest}, and {shipment} is "
                f"older: that is a rollback. Nothing was changed. fab rollback --model "
                f"{shipment.model} --version {shipment.version}"
            )


def refuse_only_host(fleet: Fleet, restarted: Sequence[Host]) -> None:
    """Raises FleetRefusal for a host in traffic that is to be restarted and has no other beside
    it."""
    for host in restarted:
        if len(fleet.region_of(host).hosts) < 2:
            raise FleetRefusal(
                f"{host.name} is the only host of {host.region}: restarting its "
                "Triton would leave the region without answers. Use --set rollout.strategy=load, "
                "or add a host. Nothing was changed."
            )


def refuse_instances(
    model: str, ordered: int | None, changed: Sequence[Host], states: Mapping[str, HostState]
) -> None:
    """Raises FleetRefusal for a host to be changed that takes fewer instances than are ordered."""
    for host in changed:
        most = states[host.name].max_instances
        if ordered is not None and most is not None and ordered > most:
            raise FleetRefusal(
                f"{host.name} takes {most} instances of a model at most "
                f"(site.triton.max_instances), and {ordered} of {model} are ordered. Nothing was "
                f"changed. Type: fab scale --model {model} --instances {most}, or raise the limit "
                f"and fab upgrade --hosts {host.name}"
            )
