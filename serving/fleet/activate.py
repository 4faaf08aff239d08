"""One host, from the version it serves to the next and back: the order that loses no request.

drain, finish what is in flight, load, prove with golden examples, remember for a restart, give
back, watch. Each step may be run again after a crash; it then finds its work done.
"""

from __future__ import annotations

from collections.abc import Callable

from serving.fleet.edge import READY
from serving.fleet.inventory import FleetError, Host
from serving.fleet.journal import Before
from serving.fleet.plan import Change
from serving.fleet.shipment import Shipment
from serving.fleet.world import World

Note = Callable[[Host, str, str], None]
"""`note(host, step, detail)`: journals and shows a step; raises when we may not go on."""


class Unhealthy(FleetError):
    """A host failed requests after it was given back to clients."""


def activate(
    world: World, change: Change, shipment: Shipment, strategy: str, max_errors: int, note: Note
) -> None:
    """Bring one host to `change.versions`. Raises FleetError; the host is then as far as it got."""
    host, config = change.host, change.config
    alone = not world.peers_up(host)
    down = not world.read(host).alive
    if change.before.edge == READY and alone and strategy == "restart" and not down:
        raise FleetError(
            f"{host.name} is the last host of {host.region} that takes traffic: its Triton will "
            "not be restarted. Bring another host up, or use --set rollout.strategy=load."
        )
    if alone and not down:
        # Loading beside a version that serves loses nothing either; it only costs latency.
        note(host, "keep", "last host of its region: loads without being drained")
    else:
        note(host, "drain", "")
        world.drain(host)
    note(host, "install", str(shipment))
    world.install(host, shipment)
    if down or (strategy == "restart" and not alone):
        note(host, "restart", "Triton, parked at the edge")
        world.park(host)
        world.persist(host, config)
        world.restart(host)
    note(host, "load", _list(change.versions))
    world.serve(host, config, change.versions)
    note(host, "prove", "")
    note(host, "proven", world.prove(host, shipment.version))
    world.persist(host, config)
    if change.before.edge != READY:
        world.set_edge(host, change.before.edge)
        note(host, "keep", f"left in {change.before.edge}, as it was before")
        return
    note(host, "undrain", "")
    world.set_edge(host, READY)
    traffic = world.watch(host)
    if traffic.errors > max_errors:
        raise Unhealthy(
            f"{host.name} failed {traffic.errors} of {traffic.requests} requests after it was "
            f"given {shipment} and traffic (rollout.max_errors is {max_errors})."
        )
    seen = f"{traffic.requests} requests, {traffic.errors} failed"
    # No traffic is no evidence; the golden examples are what the host was judged by.
    note(host, "healthy", seen if traffic.requests else "no traffic yet; golden examples only")


def restore(world: World, host: Host, before: Before, note: Note) -> None:
    """Bring one host back to what it was. Raises FleetError; the host may then be out of traffic.

    What already is as before stays untouched.
    """
    state = world.read(host)
    if state.problem:
        raise FleetError(state.problem)
    same = state.serving == before.served and state.config == before.config
    if same and state.alive:
        if state.edge != before.edge:
            note(host, "undrain", f"{before.edge} again")
            world.set_edge(host, before.edge)
        return
    if state.edge == READY and world.peers_up(host):
        note(host, "drain", "to undo")
        world.drain(host)
    note(host, "undo", f"back to {_list(before.served)}")
    world.persist(host, before.config)
    if not state.alive:
        world.park(host)
        world.restart(host)
    if before.served and before.config is not None:
        world.serve(host, before.config, before.served)
        note(host, "proven", world.prove(host, max(before.served)))
    else:
        world.withdraw(host)
    world.set_edge(host, before.edge)
    note(host, "undone", f"serves {_list(before.served)}, edge {before.edge}")


def _list(versions: tuple[int, ...]) -> str:
    return " and ".join(str(version) for version in versions) if versions else "nothing"
