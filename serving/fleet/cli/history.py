"""`fab history`: who rolled what out, when and why, how it ended and how long it took."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from conf.names import printable
from serving.artifact import store
from serving.artifact.manifest import ManifestError
from serving.artifact.store import StoreError
from serving.fleet.cli.command import Controls, model_name
from serving.fleet.cli.tables import plain_table
from serving.fleet.errors import FleetConfigError
from serving.fleet.report.pages import read_rollouts
from serving.fleet.report.read_rollouts import seconds_of
from serving.fleet.report.rollout_record import CONTINUED, OPEN, RolloutRecord
from serving.fleet.report.text import ago, duration, utc
from serving.fleet.report.way_back import total_traffic
from serving.fleet.rollout.records import OF_ONE_HOST, JournalEvent

NEWEST = 20
_COLOURS = {
    "done": "green", "prepared": "green",
    OPEN: "yellow", CONTINUED: "yellow", "refused": "yellow",
}  # fmt: skip


@dataclass(frozen=True)
class HistoryRow:
    """One rollout, or an order: to a host, which it then names, or of instances of a model.

    `at` is its start in UTC, `age_s` the seconds since then. An order has `ordered` for its
    outcome, and one to a host neither model nor version.

    `continued_by` is the rollout that went on from this one, empty where it ended of itself.
    `run` and `source` are the run that trained the version and the digest of its code, empty where
    the store has the version no more. `requests` and `failed` are None where nothing counted them.
    """

    rollout: str
    at: str
    age_s: float
    who: str
    action: str
    model: str
    version: int | None
    previous: int | None
    reason: str
    outcome: str
    outcome_reason: str
    continued_by: str
    seconds: float
    run: str
    source: str
    requests: int | None
    failed: int | None
    host: str = ""


def rollout_history(on: Controls, model: str | None, count: str | None) -> list[HistoryRow]:
    """The newest rollouts and orders, newest first: `count` of them, of `model` or of all.

    Raises ConfigError for a `model` or a `count` that is none.
    """
    if model is not None:
        model_name(model, "history")
    if count is not None and not (count.isascii() and count.isdigit() and 0 < int(count) < 10**6):
        raise FleetConfigError("-n takes how many rollouts to show. Type: fab history -n 50")
    now = time.time()
    orders = [one for one in on.journal.events(model) if _is_order(one)]
    found: list[tuple[float, RolloutRecord | JournalEvent]] = [
        *((record.began, record) for record in read_rollouts(on.journal, model)),
        *((seconds_of(order.at), order) for order in orders),
    ]
    newest = sorted(found, key=lambda pair: pair[0], reverse=True)[: int(count or NEWEST)]
    return [
        _row(on.store, one, now) if isinstance(one, RolloutRecord) else _order_row(one, now)
        for _, one in newest
    ]


def history_lines(rows: list[HistoryRow]) -> list[str]:
    """A line for each rollout, and one below it for a reason."""
    lines = []
    for row in rows:
        line = (
            f"{ago(row.age_s):<12} {row.action:<8} {_versions(row):<16} {row.outcome:<19} "
            f"{duration(row.seconds):<10} {row.who}  {row.rollout}"
        )
        why = "; ".join(one for one in (row.reason, row.outcome_reason) if one)
        lines.append(line + (f"\n{'':<12} {why}" if why else ""))
    return lines or ["nothing was rolled out yet: fab deploy"]


def history_table(rows: list[HistoryRow]) -> Table:
    """The same for a terminal."""
    table = plain_table(
        "rollouts", ("when", "action", "version", "outcome", "took", "failed", "who", "why", "code")
    )
    for row in rows:
        failed = "-" if row.failed is None else f"{row.failed:,} of {row.requests:,}"
        why = "\n".join(one for one in (row.reason, row.outcome_reason) if one)
        cells = (row.action, _versions(row), row.outcome, duration(row.seconds), failed, row.who)
        texts = [Text(printable(cell)) for cell in cells]
        texts[2].stylize(_COLOURS.get(row.outcome, "red"))
        code = f"{row.run} {row.source[:8]}".strip() or "-"
        table.add_row(ago(row.age_s), *texts, Text(printable(why)), Text(printable(code)))
    return table


def _row(folder: Path, record: RolloutRecord, now: float) -> HistoryRow:
    traffic = total_traffic(record)
    run, source = _origin(folder, record.model, record.version)
    return HistoryRow(
        rollout=record.rollout,
        at=utc(record.began),
        age_s=max(round(now - record.began, 1), 0.0),
        who=record.who,
        action=record.action,
        model=record.model,
        version=record.version,
        previous=record.previous,
        reason=record.reason,
        outcome=record.outcome,
        outcome_reason=record.outcome_reason,
        continued_by=record.continued_by,
        seconds=round(record.seconds, 2),
        run=run,
        source=source,
        requests=traffic.requests if traffic else None,
        failed=traffic.errors if traffic else None,
    )


def _is_order(event: JournalEvent) -> bool:
    """True for a step of no rollout: a person's word about a host, or `fab scale`."""
    return event.event == "scaled" or (event.event in OF_ONE_HOST and event.model is None)


def _order_row(order: JournalEvent, now: float) -> HistoryRow:
    began = seconds_of(order.at)
    reason = str(order.content.get("reason", ""))
    if order.event == "scaled":
        count = order.content["instances"]
        given = "as many instances as packaged" if count is None else f"{count} instances"
        reason = f"{given}: {reason}".rstrip(": ")
    return HistoryRow(
        rollout=order.rollout,
        at=utc(began),
        age_s=max(round(now - began, 1), 0.0),
        who=order.who,
        action=order.event,
        model=order.model or "",
        version=order.version,
        previous=None,
        reason=reason,
        outcome="ordered",
        outcome_reason="",
        continued_by="",
        seconds=0.0,
        run="",
        source="",
        requests=None,
        failed=None,
        host=order.host,
    )


def _origin(folder: Path, model: str, version: int) -> tuple[str, str]:
    """The run and the digest of the code that a version was made by."""
    try:
        lineage = store.get(folder, model, version).manifest.lineage
    except (StoreError, ManifestError, OSError):
        return "", ""
    return lineage.run, lineage.source_digest


def _versions(row: HistoryRow) -> str:
    if row.host:
        return row.host
    before = f"{row.previous} to " if row.previous and row.previous != row.version else ""
    return f"{row.model} {before}{row.version}"
