"""Upgrades of machines as the journal has them: who, why, from what to what, what is open. Pure.

    upgrade-started  {hosts, reason, resumes}              before the first machine
    upgrading        {host, serving, edges, from, to}      before a machine is touched
    upgraded         {host}                                it serves as before, and has its traffic
    upgrade-ended    {outcome: done, refused or incomplete, detail}

Others write the journal too: a field that is missing or of the wrong kind counts as empty, and a
host of which nothing is known is not given traffic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from serving.fleet.rollout.records import JournalEvent

STARTED, UPGRADING, UPGRADED, ENDED = "upgrade-started", "upgrading", "upgraded", "upgrade-ended"
DONE, OPEN = "done", "open"
_TAKEN_OUT = ("quarantined", "drained", "standby")

Serving = Mapping[str, tuple[int, ...]]
"""Ready versions by model."""


@dataclass(frozen=True)
class ServiceBefore:
    """A machine before its upgrade: what it served, and the edges that gave it traffic."""

    serving: Serving = field(default_factory=dict)
    edges: tuple[str, ...] = ()


@dataclass(frozen=True)
class UpgradeRecord:
    """One upgrade. Times are seconds since the epoch; `ended` is None while it has no end.

    `hosts` are those that it meant to change, `finished` those that it did, `host` the one that it
    was at, "" between two. `digests` are (from, to) of each host that it began, in their order;
    `outcome` is done, refused, incomplete, or OPEN.
    """

    upgrade: str
    who: str
    reason: str
    began: float
    last: float
    ended: float | None
    outcome: str
    detail: str
    hosts: tuple[str, ...]
    finished: tuple[str, ...]
    host: str
    digests: tuple[tuple[str, str], ...]

    @property
    def seconds(self) -> float:
        """From its start to its end, or to its last event."""
        return max((self.ended if self.ended is not None else self.last) - self.began, 0.0)

    @property
    def rest(self) -> tuple[str, ...]:
        """The machines that it meant to change and did not finish."""
        return tuple(host for host in self.hosts if host not in self.finished)


@dataclass(frozen=True)
class OpenUpgrade:
    """An upgrade that did not get to a good end. `left` are the machines that it, or one before it,
    began and did not finish, each as it was before."""

    record: UpgradeRecord
    left: Mapping[str, ServiceBefore]


def upgrade_records(events: Sequence[JournalEvent]) -> list[UpgradeRecord]:
    """Every upgrade that has a start in `events`, oldest first."""
    by_upgrade: dict[str, list[JournalEvent]] = {}
    for one in events:
        if one.event in (STARTED, UPGRADING, UPGRADED, ENDED):
            by_upgrade.setdefault(one.rollout, []).append(one)
    return [_record(found) for found in by_upgrade.values() if found[0].event == STARTED]


def open_upgrade(events: Sequence[JournalEvent]) -> OpenUpgrade | None:
    """The newest upgrade, where it has no end or left a machine half-way; None for none.

    Each upgrade goes on with what an earlier one left; one that ended well has left nothing. A host
    that a person took out of traffic meanwhile is finished, and stays out of it.
    """
    records = upgrade_records(events)
    left: dict[str, ServiceBefore] = {}
    for one in events:
        if one.event == UPGRADING:
            left.setdefault(one.host, _service(one.content))
        elif one.event == UPGRADED:
            left.pop(one.host, None)
        elif one.event == ENDED and one.content.get("outcome") == DONE:
            left.clear()
        elif one.event in _TAKEN_OUT and one.host in left:
            left[one.host] = ServiceBefore(left[one.host].serving)
    if not records or (records[-1].outcome != OPEN and not left):
        return None
    return OpenUpgrade(records[-1], left)


def _record(events: Sequence[JournalEvent]) -> UpgradeRecord:
    start, times = events[0], [datetime.fromisoformat(one.at).timestamp() for one in events]
    end = next((one for one in events if one.event == ENDED), None)
    begun = {one.host: one.content for one in events if one.event == UPGRADING}
    finished = tuple(one.host for one in events if one.event == UPGRADED)
    return UpgradeRecord(
        upgrade=start.rollout,
        who=start.who,
        reason=_text(start.content, "reason"),
        began=times[0],
        last=max(times),
        ended=times[events.index(end)] if end else None,
        outcome=(_text(end.content, "outcome") or "incomplete") if end else OPEN,
        detail=_text(end.content, "detail") if end else "",
        hosts=_texts(start.content.get("hosts")),
        finished=finished,
        host=next((host for host in reversed(begun) if host not in finished), ""),
        digests=tuple((_text(one, "from"), _text(one, "to")) for one in begun.values()),
    )


def _service(content: Mapping[str, Any]) -> ServiceBefore:
    serving = content.get("serving")
    found = serving.items() if isinstance(serving, dict) else ()
    return ServiceBefore(
        {
            model: tuple(one for one in versions if type(one) is int)
            for model, versions in found
            if isinstance(versions, list)
        },
        _texts(content.get("edges")),
    )


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(_only_texts(value)) if isinstance(value, list) else ()


def _only_texts(values: Iterable[Any]) -> Iterable[str]:
    return (one for one in values if isinstance(one, str))


def _text(content: Mapping[str, Any], key: str) -> str:
    value = content.get(key)
    return value if isinstance(value, str) else ""
