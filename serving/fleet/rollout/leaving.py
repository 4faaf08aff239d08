"""The model leaves the hosts outside its placement, at the end of a heal.

Where an edge may still send a host its requests, the host keeps what it serves, and is named.
"""

from __future__ import annotations

from serving.fleet.errors import FleetError
from serving.fleet.inventory import Host
from serving.fleet.rollout.fleet_pass import FleetPass
from serving.fleet.rollout.host import await_quiet, read
from serving.fleet.rollout.lease import LeaseLost

_AT_ONCE = 16


def leave_hosts(on: FleetPass) -> None:
    """Take the model out of each host of the turn that is outside. Raises LeaseLost; what else
    fails is a sentence in `on.stuck`."""

    def leave(host: Host) -> None:
        try:
            _leave(on, host)
        except LeaseLost:
            raise
        except FleetError as error:
            on.stuck[host.name] = str(error)

    on.run.each(on.turn.outside, leave, _AT_ONCE)


def _leave(on: FleetPass, host: Host) -> None:
    run, model = on.run, on.run.shipment.model
    if not read(run, host).has_model:
        return
    if run.driver.receives(host):
        raise FleetError(
            f"{host.name} is outside the placement of {model}, and an edge still sends it "
            "requests: the model stays there. First give the edges their config: fab edges --roll "
            f"(of this machine: scripts/site up); then fab heal --model {model}"
        )
    on.changed.add(host.name)
    run.log_step(host, "leave", f"{host.name} is outside the placement of {model}")
    # Before it is done: nothing on this host is a warm way back any more.
    run.record_proven(host, ())
    await_quiet(run, host)
    run.driver.persist(host, (), rollback=True)
    run.driver.withdraw(host)
