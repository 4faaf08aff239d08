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
from serving.fleet.report.rollout_record import CONTINUED, OPEN, RolloutRecord
from serving.fleet.report.text import ago, duration, utc
from serving.fleet.report.way_back import total_traffic

NEWEST = 20
_COLOURS = {
    "done": "green", "prepared": "green",
    OPEN: "yellow", CONTINUED: "yellow", "refused": "yellow",
}  # fmt: skip


@dataclass(frozen=True)
class HistoryRow:
    """One rollout. `at` is its start in UTC, `age_s` the seconds since then.

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
    version: int
    previous: int | None
    reason: str
    outcome: str
    outcome_reason: str
    seconds: float
    run: str
    source: str
    requests: int | None
    failed: int | None
    continued_by: str = ""


def rollout_history(on: Controls, model: str | None, count: str | None) -> list[HistoryRow]:
    """The newest rollouts, newest first: `count` of them, of `model` or of all.

    Raises ConfigError for a `model` or a `count` that is none.
    """
    if model is not None:
        model_name(model, "history")
    if count is not None and not (count.isascii() and count.isdigit() and 0 < int(count) < 10**6):
        raise FleetConfigError("-n takes how many rollouts to show. Type: fab history -n 50")
    records = sorted(read_rollouts(on.journal, model), key=lambda one: one.began)
    now = time.time()
    newest = records[-int(count or NEWEST) :]
    return [_row(on.store, record, now) for record in reversed(newest)]


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
        seconds=round(record.seconds, 2),
        run=run,
        source=source,
        requests=traffic.requests if traffic else None,
        failed=traffic.errors if traffic else None,
        continued_by=record.continued_by,
    )


def _origin(folder: Path, model: str, version: int) -> tuple[str, str]:
    """The run and the digest of the code that a version was made by."""
    try:
        lineage = store.get(folder, model, version).manifest.lineage
    except (StoreError, ManifestError, OSError):
        return "", ""
    return lineage.run, lineage.source_digest


def _versions(row: HistoryRow) -> str:
    before = f"{row.previous} to " if row.previous and row.previous != row.version else ""
    return f"{row.model} {before}{row.version}"
