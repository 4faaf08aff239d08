"""One upgrade of machines as an HTML page like a rollout's: a lane for each machine, why, and the
way on. Pure.

An upgrade walks machine by machine, and a version never changes in it: what clients saw of
it is in `fab status` and at Prometheus, not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from conf.page import duration, escaped, page_document, utc
from serving.fleet.report.drawing import lanes_svg
from serving.fleet.report.page import html_table
from serving.fleet.report.style import STYLE
from serving.fleet.report.timeline import HURT, LaneSegment, TimeLane
from serving.fleet.rollout.records import JournalEvent
from serving.fleet.rollout.upgrades import DONE, OPEN, UPGRADED, UPGRADING, UpgradeRecord

_TONES = {DONE: "good", OPEN: "open", "refused": "undo"}


@dataclass(frozen=True)
class MachineTime:
    """One machine in an upgrade: seconds since the epoch at which it was begun and was whole again,
    None where it was not; `after` is the digest that it was to get, `before` the one it had."""

    name: str
    began: float
    ended: float | None
    before: str
    after: str


def machine_times(events: Sequence[JournalEvent], upgrade: str) -> list[MachineTime]:
    """The machines that the upgrade began, in its order."""
    found: dict[str, MachineTime] = {}
    for one in (event for event in events if event.rollout == upgrade):
        if one.event == UPGRADING:
            texts = [str(one.content.get(key) or "") for key in ("from", "to")]
            found[one.host] = MachineTime(one.host, _seconds(one), None, *texts)
        elif one.event == UPGRADED and one.host in found:
            was = found[one.host]
            found[one.host] = MachineTime(was.name, was.began, _seconds(one), was.before, was.after)
    return list(found.values())


def _seconds(event: JournalEvent) -> float:
    return datetime.fromisoformat(event.at).timestamp()


def upgrade_page(record: UpgradeRecord, machines: Sequence[MachineTime], written: float) -> str:
    """The page; `written` is the time of writing."""
    end = record.ended if record.ended is not None else record.last
    whole = f"{len(record.finished)} of {len(record.hosts)} machines"
    title = f"{whole} upgraded{'' if record.ended else ' so far'}: {record.outcome}"
    if record.outcome == DONE:
        title = f"{whole} upgraded in {duration(record.seconds)}, none left half-way"
    lanes = [_lane(one, record.began, end) for one in machines]
    rows = [
        (one.name, f"{one.began - record.began:.1f} s", _took(one), one.before, one.after)
        for one in machines
    ]
    rows += [(name, "-", "not begun", "-", "-") for name in _unbegun(record, machines)]
    facts = (
        ("who", record.who), ("why", record.reason or "no reason was given"),
        ("began", utc(record.began)), ("outcome", record.outcome), ("upgrade", record.upgrade),
    )  # fmt: skip
    parts = [
        f'<h1 class="{_TONES.get(record.outcome, "hurt")}">{escaped(title)}.</h1>',
        f'<p class="soft">by {escaped(record.who)}, began {escaped(utc(record.began))}</p>',
        *(
            [f'<p class="box undo" id="reason">{escaped(record.detail)}</p>']
            if record.detail
            else []
        ),
        '<dl id="facts">',
        *(f"<dt>{name}</dt><dd>{escaped(value)}</dd>" for name, value in facts),
        "</dl><section><h2>Machines over time</h2>",
        lanes_svg("machines, one by one", tuple(lanes), max(end - record.began, 0.1)),
        "</section>",
        html_table("machines", "", ("machine", "after", "took", "from", "to"), rows),
        f'<section><h2>Now</h2><p id="next">{escaped(_next(record))}</p>'
        f'<p class="soft">As of {escaped(utc(written))}.</p></section>',
    ]
    return page_document(title, "".join(parts), STYLE)


def _lane(one: MachineTime, began: float, end: float) -> TimeLane:
    last = end if one.ended is None else one.ended
    kind = "undo" if one.ended is None else "load"
    label = f"{one.before or 'nothing'} to {one.after or 'nothing'}"
    segment = LaneSegment(one.began - began, last - began, kind, label)
    return TimeLane(one.name, (segment,), HURT if one.ended is None else "healthy")


def _took(one: MachineTime) -> str:
    return "left half-way" if one.ended is None else duration(one.ended - one.began)


def _unbegun(record: UpgradeRecord, machines: Sequence[MachineTime]) -> list[str]:
    begun = {one.name for one in machines}
    return [name for name in record.hosts if name not in begun]


def _next(record: UpgradeRecord) -> str:
    if record.outcome == DONE:
        return "Nothing is left to do."
    return f"Mend what it names and go on: fab upgrade --hosts {','.join(record.rest)}"
