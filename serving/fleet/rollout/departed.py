"""Hosts that left the site (`fab remove`, `fab replace`) while an edge still sends them requests.

Nobody stages, proves or mends anything on such a host, so an edge must not be given a version for
it. A deploy, which can wait, is refused by name until the edges have their new config. A rollback
and a heal, which cannot, put it into maintenance at that edge first and name it; only where the
edge has no other host in traffic it stays there, because then its answers are the only ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from serving.fleet.errors import FleetError, FleetRefusal
from serving.fleet.inventory import Host
from serving.fleet.rollout.driver import FleetDriver
from serving.fleet.rollout.fleet_pass import FleetPass
from serving.fleet.rollout.lease import LeaseLost

_ROLL = "fab edges --roll (of this machine: scripts/site up)"


def departed_hosts(
    recipients: Mapping[str, frozenset[str]], hosts: Iterable[Host]
) -> dict[str, list[str]]:
    """The names that each edge sends requests to and that are none of `hosts`, all of the site;
    edges without any are left out."""
    known = {host.name for host in hosts}
    return {edge: sorted(names - known) for edge, names in recipients.items() if names - known}


def refuse_departed(driver: FleetDriver, hosts: Iterable[Host]) -> None:
    """Raises FleetRefusal where an edge sends requests to a host that is none of `hosts`."""
    found = departed_hosts(driver.recipients(), hosts)
    if found:
        named = "; ".join(f"{edge} to {', '.join(names)}" for edge, names in found.items())
        raise FleetRefusal(
            f"edges still send requests to hosts that left the site: {named}. They would be given "
            f"a version that nobody brings there. Nothing was changed. First: {_ROLL}"
        )


def shut_out_departed(on: FleetPass) -> None:
    """Give departed hosts no more requests; each is named in `on.stuck`, done or not, since its
    edge still has to get its config. Raises LeaseLost."""
    run = on.run
    recipients = run.driver.recipients()
    for edge, names in departed_hosts(recipients, (*run.fleet.hosts, *run.outside)).items():
        left = f"the edge {edge} still sent requests to {', '.join(names)}, which left the site"
        if not recipients[edge] - set(names):
            on.stuck[names[0]] = f"{left}, and has no other host: it was left so. Type: {_ROLL}"
            continue
        for name in names:
            try:
                run.lease.check()
                run.record("shut-out", host=name, edge=edge)
                run.progress(name, "out", f"{left}: in maintenance there")
                run.driver.shut_out(edge, name)
            except LeaseLost:
                raise
            except FleetError as error:
                on.stuck[name] = f"{left}, and could not be taken out: {error}"
            else:
                on.stuck[name] = f"{left}: it is in maintenance there now. Type: {_ROLL}"
