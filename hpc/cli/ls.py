"""`lockgate ls`: the runs of a site, newest last."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.cli.follow import local_time

if TYPE_CHECKING:
    from hpc.jobs.queue import RunState

COLOURS = {"finished": "green", "failed": "red", "running": "cyan", "unknown": "yellow"}

MANY = 500
"""More rows are printed without a frame."""


def main(argv: Sequence[str]) -> int:
    """Run `lockgate ls ARGV`."""
    parser = argparse.ArgumentParser(
        prog="lockgate ls", description="List runs and where they stand, the newest last."
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as in site=box")
    parser.add_argument("-n", type=int, default=20, metavar="N", help="the newest N (default 20)")
    parser.add_argument("--sweep", metavar="NAME", help="the trials of one sweep, the best first")
    parser.add_argument("--by", metavar="METRIC", help="of a sweep: rank by this metric")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_intermixed_args(list(argv))
    from hpc.cli.site import runs_folder
    from hpc.jobs.queue import run_states
    from hpc.jobs.run.folder import all_runs

    runs = runs_folder(options.overrides)
    if options.sweep is not None:
        return _sweep(runs, options)
    states = run_states(all_runs(runs)[-max(options.n, 1) :])
    if options.json:
        print(json.dumps([state.as_dict() for state in states], indent=2))
    else:
        _table(states)
    return 0


def _sweep(runs: Path, options: argparse.Namespace) -> int:
    """Print the trials of one sweep, the best first, and name the best."""
    from hpc.cli.sweep_table import best_text, sweep_header, sweep_rows
    from hpc.cli.table import print_table
    from hpc.jobs.sweep.standings import sweep_standings

    found = sweep_standings(runs, options.sweep, options.by)
    if options.json:
        print(json.dumps(found.as_dict(), indent=2))
        return 0
    print_table(sweep_rows(found), sweep_header(found))
    if best := best_text(found):
        print(best)
    return 0


def _table(states: list[RunState]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from conf.names import printable

    if not states:
        print("no runs yet; start one: lockgate train task=NAME")
        return
    from hpc.jobs.run.swept_values import values_text

    table = Table(box=box.SIMPLE, pad_edge=False)
    swept = any(state.sweep for state in states)
    for name in ("run", "task", "state", "step", "age", "loss", *["sweep"][:swept], ""):
        table.add_column(name, no_wrap=name == "run", justify="right" if name == "step" else "left")
    now = datetime.now(UTC)
    plain: list[list[str]] = []
    for state in states:
        colour = COLOURS.get(state.state, "default")
        cells = (
            state.run,
            state.task,
            state.state,
            f"{state.step}/{state.steps}",
            age(state.submitted, now),
            "" if state.loss is None else f"{state.loss:.4g}",
            *[f"{state.sweep or ''} {values_text(state.values)}".strip()][:swept],
            "; ".join(part for part in (state.detail, _goes_on(state)) if part),
        )
        plain.append([printable(" ".join(cell.split("\n"))) for cell in cells])
        if len(states) <= MANY:
            # As text: rich would take a name such as [red] for a colour.
            row = [Text(cell) for cell in plain[-1]]
            row[2].stylize(colour)
            table.add_row(*row)
    if len(states) > MANY:
        _print_plain(plain)
        return
    # A pipe has no width; whole lines are what grep and people want there.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _print_plain(rows: list[list[str]]) -> None:
    """Columns without a heading: a table of rich takes a second for each two thousand rows."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _goes_on(state: RunState) -> str:
    """`goes on at 11:27:47` of a requeued run, `starts at ...` of a new one; empty without a time.

    In local time, with the date where it is another day's.
    """
    if state.goes_on is None:
        return ""
    return f"{'goes on' if state.attempt else 'starts'} at {local_time(state.goes_on)}"


def age(submitted: str | None, now: datetime) -> str:
    """Time since `submitted` in its one or two largest units: 45s, 12m, 3h 05m, 2d 04h.

    `?` for what is no time, or one without a zone.
    """
    if not submitted:
        return ""
    try:
        seconds = max(0, int((now - datetime.fromisoformat(submitted)).total_seconds()))
    except (ValueError, TypeError):
        return "?"
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    if days:
        return f"{days}d {hours:02}h"
    if hours:
        return f"{hours}h {minutes:02}m"
    return f"{minutes}m" if minutes else f"{seconds}s"
