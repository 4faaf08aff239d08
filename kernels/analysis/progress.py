"""Progress of long work on stderr: bars on a terminal, a line for each part otherwise."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Done = Callable[[str, str], None]


@contextmanager
def progress(totals: dict[str, int]) -> Iterator[Done]:
    """Call the value with (kind of work, a line about the part) for each of `totals` parts done."""
    console = Console(stderr=True, markup=False, highlight=False)
    if console.is_terminal:
        with _bars(console, totals) as done:
            yield done
        return
    counts, start = dict.fromkeys(totals, 0), time.monotonic()

    def line(kind: str, text: str) -> None:
        counts[kind] += 1
        took = time.monotonic() - start
        sys.stderr.write(f"{kind} {counts[kind]}/{totals[kind]} {text}, {took:.0f} s\n")
        sys.stderr.flush()

    yield line


@contextmanager
def _bars(console: Console, totals: dict[str, int]) -> Iterator[Done]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn())  # fmt: skip
    with Progress(*columns, console=console) as shown:
        tasks = {kind: shown.add_task(kind, total=total) for kind, total in totals.items()}

        def bar(kind: str, text: str) -> None:
            shown.console.print(f"{kind} {text}")
            shown.advance(tasks[kind])

        yield bar
