"""Orders about one host: out of traffic and back, kept out by a journalled reason, restarted.

No version changes. A host comes back into traffic only when each model in production answers its
golden questions there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from serving.fleet.errors import FleetError, FleetRefusal
from serving.fleet.haproxy.edge import READY
from serving.fleet.inventory import Host
from serving.fleet.rollout.driver import FleetDriver
from serving.fleet.rollout.journal import Journal
from serving.fleet.rollout.lease import Lease, LeaseLost
from serving.fleet.rollout.rollout_run import Progress


@dataclass(frozen=True)
class HostOrder:
    """An order that is being carried out; `drivers` are one for each model in production, with its
    version, and one at least."""

    host: Host
    drivers: Sequence[tuple[FleetDriver, int | None]]
    journal: Journal
    lease: Lease
    progress: Progress

    @property
    def driver(self) -> FleetDriver:
        """Any of the drivers: what concerns the host as a whole is the same for every model."""
        return self.drivers[0][0]

    def log(self, event: str, **content: Any) -> None:
        """Journal the order before it is done. Raises LeaseLost."""
        self.lease.check()
        rollout = f"host-{self.lease.fence}"
        self.journal.record(event, rollout, host=self.host.name, **content)
        self.progress(self.host.name, event, str(content.get("reason", "")))


def quarantine(order: HostOrder, reason: str) -> str:
    """Keep a host out of traffic, and out of every rollout, until `undrain`; needs no SSH to it.

    Raises FleetRefusal for the last host of its region.
    """
    _never_the_last(order)
    order.log("quarantined", reason=reason)
    order.driver.set_maintenance(order.host)
    return (
        f"{order.host.name} is quarantined: no traffic, and no rollout touches it. Back: fab "
        f"undrain {order.host.name}"
    )


def drain(order: HostOrder, reason: str) -> str:
    """Take a host out of traffic when it has finished what it had; rollouts still change it."""
    _never_the_last(order)
    order.log("drained", reason=reason)
    order.driver.drain(order.host)
    return f"{order.host.name} gets no traffic. Back: fab undrain {order.host.name}"


def stand_by(order: HostOrder, reason: str) -> None:
    """Take a host out of traffic as a reserve: no rollout touches it until it is admitted.

    Raises FleetRefusal for the last host of its region.
    """
    _never_the_last(order)
    order.log("standby", reason=reason)
    order.driver.drain(order.host)


def admit(order: HostOrder, heal: Callable[[], str], reason: str) -> None:
    """Bring a host on standby into traffic, as `undrain` does. Raises FleetError; it is then on
    standby as before.

    Journalled when it is done, unlike a person's order: one that was killed before that is found
    on standby, and not taken for a host that a person has drained.
    """
    _heal(order, heal)
    _prove(order)
    order.lease.check()
    try:
        order.driver.set_edge(order.host, READY)
    except LeaseLost:
        raise
    except FleetError:
        order.driver.set_maintenance(order.host)
        raise
    order.log("admitted", reason=reason)


def undrain(order: HostOrder, heal: Callable[[], str], reason: str) -> str:
    """Bring a host to what production is (`heal` does, and returns what it could not), and give it
    traffic again. Raises FleetError; the host is then out of traffic as before."""
    _heal(order, heal)
    _prove(order)
    order.log("unquarantined", reason=reason)
    order.driver.set_edge(order.host, READY)
    return f"{order.host.name} takes traffic again."


def restart(order: HostOrder, reason: str) -> str:
    """Restart a host's Triton, drained, and give it back as it was. Raises FleetError."""
    before = order.driver.read_host(order.host)
    if before.alive and before.problem is None:
        _never_the_last(order)
    order.log("restarted", reason=reason)
    order.driver.drain(order.host)
    order.driver.set_maintenance(order.host)
    order.driver.restart(order.host)
    _prove(order)
    order.driver.set_edge(order.host, before.edge)
    return f"{order.host.name} was restarted; it is in {before.edge} at its edge, as before."


def _heal(order: HostOrder, heal: Callable[[], str]) -> None:
    if left := heal():
        raise FleetError(f"{order.host.name} is not fit for traffic, and stays out of it: {left}")


def _prove(order: HostOrder) -> None:
    for driver, version in order.drivers:
        if version is not None:
            order.lease.check()
            order.progress(order.host.name, "checked", driver.check_golden(order.host, version))


def _never_the_last(order: HostOrder) -> None:
    host = order.host
    if order.driver.edge_states().get(host.name) == READY and not order.driver.peers_up(host):
        raise FleetRefusal(
            f"{host.name} is the last host of {host.region} that takes traffic. Nothing was "
            "changed. Bring another one up first: fab undrain HOST"
        )
