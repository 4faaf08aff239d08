"""`fab history`: who rolled out or upgraded what, when and why, how it ended, how long it took."""

from __future__ import annotations

import time

from rich.table import Table
from rich.text import Text

from conf.names import printable
from conf.page import duration
from serving.fleet.cli.command import Controls, model_name
from serving.fleet.cli.history_rows import ORDERED, HistoryRow, history_rows
from serving.fleet.cli.tables import plain_table
from serving.fleet.errors import FleetConfigError
from serving.fleet.report.pages import read_rollouts
from serving.fleet.report.rollout_record import CONTINUED, OPEN
from serving.fleet.report.text import ago

NEWEST = 20
_COLOURS = {
    "done": "green", "prepared": "green", ORDERED: "green",
    OPEN: "yellow", CONTINUED: "yellow", "refused": "yellow",
}  # fmt: skip


def rollout_history(on: Controls, model: str | None, count: str | None) -> list[HistoryRow]:
    """The newest rollouts, orders and upgrades, newest first: `count` of them; of `model`, those
    with its name only.

    Raises ConfigError for a `model` or a `count` that is none.
    """
    if model is not None:
        model_name(model, "history")
    if count is not None and not (count.isascii() and count.isdigit() and 0 < int(count) < 10**6):
        raise FleetConfigError("-n takes how many rollouts to show. Type: fab history -n 50")
    rollouts = read_rollouts(on.journal, model)
    events = on.journal.events(model)
    return history_rows(on.store, rollouts, events, int(count or NEWEST), time.time())


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


def _versions(row: HistoryRow) -> str:
    changes = dict.fromkeys(
        f"{before or 'nothing'} to {after}" for before, after in row.digests if before != after
    )
    if row.hosts or row.version is None:
        return " ".join([",".join(row.hosts), *changes]).strip() or "-"
    before = f"{row.previous} to " if row.previous and row.previous != row.version else ""
    return f"{row.model} {before}{row.version}"
