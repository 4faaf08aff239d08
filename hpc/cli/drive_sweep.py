"""The foreground of a sweep that is driven: a table on a terminal, a line per change elsewhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from conf.errors import DONE, FAILED, INTERRUPTED, LockgateError
from conf.names import printable
from hpc.cli.sweep_table import best_text, sweep_header, sweep_rows
from hpc.jobs.run.states import FINISHED
from hpc.jobs.run.swept_values import values_text
from hpc.jobs.sweep.driver import SweepDriver, SweepView, standings_so_far
from hpc.jobs.sweep.standings import ObjectiveFile, write_objective

MOST_ROWS = 25
"""Trials in the table on a terminal, the best first."""


def drive(driver: SweepDriver, as_json: bool) -> int:
    """Drive a sweep to its end; returns 0 where a trial has finished.

    Ctrl-C leaves the trials as they are, and the command ends with 130. Raises what the driver
    does.
    """
    view: SweepView | None = None
    objective = ObjectiveFile(driver.sweeper.metric, driver.sweeper.direction)
    try:
        with driver.alone():
            write_objective(driver.runs, driver.name, objective)
            with _shown(as_json) as show:
                while True:
                    begin = time.monotonic()
                    view = driver.advance()
                    show(view)
                    if view.done:
                        break
                    # A login node is others' too: of many trials the pauses are longer.
                    time.sleep(max(driver.sweeper.poll_s, time.monotonic() - begin))
    except KeyboardInterrupt:
        print(f"\nlockgate: {left_text(driver)}", file=sys.stderr)
        return INTERRUPTED
    except LockgateError:
        if view is not None:
            print(f"lockgate: {left_text(driver)}", file=sys.stderr)
        raise
    print(json.dumps(view.standings.as_dict(), indent=2) if as_json else end_text(view))
    return DONE if any(one.state_word == FINISHED for one in view.standings.trials) else FAILED


def left_text(driver: SweepDriver) -> str:
    """The trials that a command leaves behind where it ends now, and what to type."""
    found = standings_so_far(driver.runs, driver.name)  # some went out after the last view
    going = sum(bool(one.state and not one.state.over) for one in found.trials)
    left = f"{going} of its trials go on by themselves" if going else "none of its trials runs"
    less = "no more are sent" if driver.search else "none is stopped early"
    best = f"; {text}" if (text := best_text(found)) else ""
    return (
        f"the sweep {driver.name} is no longer driven: {left}, and {less}{best}. The same line "
        f"goes on with it; see: lockgate ls --sweep {driver.name}"
    )


def end_text(view: SweepView) -> str:
    """The end of a sweep: its trials by their states, and the best."""
    found = view.standings
    words: dict[str, int] = {}
    for one in found.trials:
        word = "stopped early" if one.stopped_early else one.state_word
        words[word] = words.get(word, 0) + 1
    counts = ", ".join(f"{number} {word}" for word, number in words.items())
    best = best_text(found) or "no trial has a value"
    return f"sweep {found.name}: {counts}\n{best}\n  see them: lockgate ls --sweep {found.name}"


@contextmanager
def _shown(as_json: bool) -> Iterator[Any]:
    """A function that shows a view of the sweep."""
    if as_json:
        yield lambda view: _print_notes(view)
    elif sys.stdout.isatty():
        from rich.live import Live

        with Live(refresh_per_second=4) as live:
            yield lambda view: live.update(_table(view))
    else:
        changes = Changes()
        yield lambda view: _print_changes(changes, view)


class Changes:
    """The lines of what has changed since the last view."""

    def __init__(self) -> None:
        self._before: dict[int, str] = {}

    def lines(self, view: SweepView) -> list[str]:
        """A line per trial whose state is another one now, in the order of the trials."""
        lines = []
        for one in sorted(view.standings.trials, key=lambda one: one.number):
            if one.state is None or self._before.get(one.number) == one.state_word:
                continue
            self._before[one.number] = one.state_word
            value = ""
            if one.state.over and one.value is not None:
                value = f"  {view.standings.metric} {one.value:.6g}"
            detail = f"  ({one.state.detail})" if one.state.detail else ""
            lines.append(
                f"trial {one.number + 1} of {view.total}  {values_text(one.values) or '-'}  "
                f"{one.state_word}{value}{detail}  {one.state.run}"
            )
        return lines


def _print_changes(changes: Changes, view: SweepView) -> None:
    for line in changes.lines(view):
        print(f"{datetime.now():%H:%M:%S}  {printable(' '.join(line.split(chr(10))))}", flush=True)
    _print_notes(view)


def _print_notes(view: SweepView) -> None:
    for note in view.notes:
        print(f"lockgate: {printable(note)}", file=sys.stderr)


def _table(view: SweepView) -> Any:
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    found = view.standings
    table = Table(box=box.SIMPLE, pad_edge=False)
    for name in sweep_header(found):
        table.add_column(name, overflow="fold")
    for row in sweep_rows(found)[:MOST_ROWS]:
        table.add_row(*(Text(printable(" ".join(cell.split("\n")))) for cell in row))
    over = sum(bool(one.state and one.state.over) for one in found.trials)
    more = len(found.trials) - MOST_ROWS
    lines = [f"and {more} more"] if more > 0 else []
    lines.append(f"sweep {found.name}: {over} of {view.total} trials are over")
    lines += [best_text(found), *view.notes]
    return Group(table, *(Text(printable(line)) for line in lines if line))
