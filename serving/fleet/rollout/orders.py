"""Orders of people to a rollout that is running, as durable lines beside the journal.

Each is addressed to one rollout by its id; the controller takes those that are its own, in turn,
between its steps, and the journal then has what it made of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from conf.names import check_name, shown
from serving.fleet.rollout.journal import append, operator
from serving.fleet.rollout.records import Records, read_records

ORDERS = "orders.jsonl"
OrderName = Literal["pause", "resume", "approve", "promote", "abort"]
"""pause: stay as it is. resume: go on. approve: go on where a person has to agree. promote: all
traffic to the new version, without approval or verdict. abort: undo everything."""


@dataclass(frozen=True)
class Order:
    """One order to one rollout. `number` counts the orders to it from 1."""

    at: str
    who: str
    rollout: str
    order: OrderName
    reason: str
    number: int = 0


def give_order(folder: Path, rollout: str, order: OrderName, reason: str) -> Order:
    """Append an order for `rollout` to the journal's `folder`, durable on return."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    given = Order(at, operator(), rollout, order, reason)
    append(
        folder / ORDERS,
        {"at": at, "who": given.who, "rollout": rollout, "order": order, "reason": reason},
    )
    return given


def read_orders(folder: Path) -> Records[Order]:
    """Every order ever given, oldest first, and the lines that are none. Raises OSError."""
    return read_records(folder / ORDERS, order_from)


def pending_order(folder: Path, rollout: str, after: int = 0) -> Order | None:
    """The oldest order to `rollout` with a number above `after`, the last one carried out.

    Raises OSError.
    """
    own = [one for one in read_orders(folder).entries if one.rollout == rollout]
    if len(own) <= after:
        return None
    found = own[after]
    return Order(found.at, found.who, rollout, found.order, found.reason, after + 1)


def order_from(content: Any) -> Order:
    """A line's JSON as an order. Raises ValueError, KeyError, TypeError or ConfigError."""
    if not isinstance(content, dict):
        raise ValueError("not an object")
    texts = {key: content[key] for key in ("at", "who", "rollout", "order", "reason")}
    for key, value in texts.items():
        if not isinstance(value, str):
            raise ValueError(f"{key} is not a text")
        value.encode("utf-8")  # half of a surrogate pair is JSON, and no text
    if texts["order"] not in get_args(OrderName):
        choices = ", ".join(get_args(OrderName))
        raise ValueError(f"order is {shown(texts['order'])}, not one of {choices}")
    if datetime.fromisoformat(texts["at"]).tzinfo is None:
        raise ValueError("at has no time zone")
    check_name("rollout", texts["rollout"], letters=128)
    return Order(**texts)
