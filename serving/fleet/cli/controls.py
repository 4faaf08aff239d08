"""`fab pause`, `resume`, `approve`, `promote` and `abort`: orders to the running rollout."""

from __future__ import annotations

from datetime import datetime

from serving.fleet.cli.command import Controls
from serving.fleet.errors import FleetRefusal, denied
from serving.fleet.rollout.holder import LEASE, holder_in, is_alive, read_lease, this_boot
from serving.fleet.rollout.journal import Journal
from serving.fleet.rollout.orders import OrderName, give_order
from serving.fleet.rollout.records import JournalEvent

_EFFECT: dict[OrderName, str] = {
    "pause": "stops before its next step and stays as it is",
    "resume": "goes on",
    "approve": "goes on past the step that waits for a person",
    "promote": "goes to all traffic, without approval or verdict, when its step's watch ends",
    "abort": "stops and undoes everything",
}


def order_rollout(on: Controls, order: OrderName, reason: str) -> str:
    """Give `order` to the running rollout; returns a sentence for people.

    Raises FleetRefusal where none is running, and for a rollback, which nothing stops.
    """
    started = running_rollout(on.journal, on.config.lock_ttl_s)
    if started is None:
        raise FleetRefusal(
            f"no rollout is running: there is nothing to {order}. fab status has what is open."
        )
    if started.content.get("action") == "rollback":
        raise FleetRefusal(
            f"{started.rollout} is a rollback, which goes to its end: fab {order} is for a "
            "deployment."
        )
    try:
        give_order(on.journal.folder, started.rollout, order, reason.strip())
    except PermissionError as error:
        raise denied("cannot write the journal", on.journal.folder, error) from error
    return f"{started.rollout} {_EFFECT[order]}: see its own screen, or fab status."


def running_rollout(journal: Journal, ttl_s: float) -> JournalEvent | None:
    """The `started` event of the rollout that a controller is at work on now; None without one.

    It was recorded by the lease's holder, whose clock dated both: an older one is of a controller
    that was killed, and nobody would read an order to it.
    """
    holder = holder_in(read_lease(journal.folder / LEASE), ttl_s)
    if holder is None or holder.reason or (holder.boot == this_boot() and not is_alive(holder)):
        return None
    started = [event for event in journal.events() if event.event == "started"]
    if not started or datetime.fromisoformat(started[-1].at).timestamp() < holder.since - 1:
        return None
    found = started[-1]
    is_open = found.model is not None and journal.unfinished(found.model)
    return found if is_open and is_open.rollout == found.rollout else None
