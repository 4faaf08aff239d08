"""The views of `lockgate logs -f`: plain lines, or lines above a progress bar on a terminal."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from conf.names import printable

if TYPE_CHECKING:
    from rich.console import Console

    from hpc.jobs.run.folder import Run
    from hpc.jobs.run.logs import LogLine
    from hpc.jobs.run.states import RunState

REFRESH_PER_SECOND = 2
Show = Callable[[str], None]


class FollowView:
    """Plain lines, and a line for each change of the run's state that its own log cannot have."""

    def __init__(self, run: Run, show: Show) -> None:
        self._run = run
        self._show = show
        self._sentence = ""

    def line(self, line: LogLine) -> None:
        """Show one line of a log."""
        for text in shown_lines(line):
            self._show(text)

    def state(self, state: RunState) -> None:
        """Show what is new about the state."""
        sentence = state_sentence(state)
        if sentence != self._sentence:
            self._sentence = sentence
            if sentence:
                self._show(printable(f"{self._run.name} {sentence}"))


class ProgressView(FollowView):
    """A `FollowView` above a bar of `rich` with the steps and the time that is left."""

    def __init__(self, run: Run, console: Console) -> None:
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.text import Text

        # As text: rich would take a name such as [red] for a colour.
        super().__init__(run, lambda text: console.print(Text(text), soft_wrap=True))
        words = [TextColumn(f"{{task.fields[{name}]}}", markup=False) for name in ("state", "left")]
        self.bar = Progress(
            words[0], BarColumn(), words[1],
            console=console, transient=True, refresh_per_second=REFRESH_PER_SECOND,
        )  # fmt: skip
        self._task = self.bar.add_task("", total=None, state="", left="")

    def state(self, state: RunState) -> None:
        """Show what is new about the state, and put the bar to the newest step."""
        super().state(state)
        left = time_left(self._run, state, time.time())
        steps = f"{state.step:,}/{state.steps:,}"
        self.bar.update(
            self._task,
            total=state.steps or None,
            completed=min(state.step, state.steps),
            state=state.state,
            left=steps if left is None else f"{steps}, {clock(left)} left",
        )


@contextmanager
def follow_view(run: Run, console: Console | None) -> Iterator[FollowView]:
    """The view of a run that is followed; `console` is None where the output is no terminal."""
    if console is None:
        yield FollowView(run, lambda text: print(text, flush=True))
        return
    view = ProgressView(run, console)
    with view.bar:
        yield view


def shown_lines(line: LogLine) -> list[str]:
    """A line of a log for people: a progress bar's states are lines of their own, and what would
    command the terminal is an escape."""
    parts = line.text.removesuffix("\r").split("\r")
    return [f"{line.stream} | {printable(part)}" for part in parts]


def state_sentence(state: RunState) -> str:
    """The state as it stands, for people: `requeued after step 400, goes on at 11:27:47`.

    Empty for a run in its first attempt: its log has all of it.
    """
    from hpc.jobs.run.states import QUEUED, REQUEUED, UNKNOWN

    detail = f" ({state.detail})" if state.detail else ""
    at = f" at {local_time(state.goes_on)}" if state.goes_on else ""
    if state.state == REQUEUED:
        return f"requeued after step {state.step:,}, goes on{at or ' when Slurm starts it'}{detail}"
    if state.state == QUEUED:
        return f"queued{f', starts{at}' if at else ''}{detail}"
    if state.state == UNKNOWN:
        return f"unknown{detail}"
    return f"goes on: attempt {state.attempt}" if state.attempt > 1 else ""


def time_left(run: Run, state: RunState, now: float) -> float | None:
    """Seconds until the last step of a running run, by the newest seconds per step of its log.

    None where nothing was logged yet. Evaluation and export are not in it.
    """
    from hpc.jobs.run.metric_lines import finite_number
    from hpc.jobs.run.metrics import last_metrics
    from hpc.jobs.run.states import RUNNING

    if state.state != RUNNING or not state.steps:
        return None
    metrics = last_metrics(run.metrics)
    each, at = (finite_number(metrics.get(name)) for name in ("step_seconds", "time"))
    if each is None or each < 0:
        return None
    since = max(now - at, 0.0) if at is not None else 0.0
    return max((state.steps - state.step) * each - since, 0.0)


def clock(seconds: float) -> str:
    """`0:05`, `12:00`, `3:05:00`, `2 days 3:05:00`; `?` for what no clock shows."""
    if not math.isfinite(seconds) or seconds > 1e9:
        return "?"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} day{'s' if days > 1 else ''} {hour}:{minute:02}:{second:02}"
    return f"{hour}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def local_time(iso: str) -> str:
    """`11:27:47` of today, with the date of another day; the text itself where it is no time."""
    try:
        found = datetime.fromisoformat(iso).astimezone()
    except (ValueError, OverflowError):
        return iso
    today = datetime.now().astimezone().date()
    return f"{found:%T}" if found.date() == today else f"{found:%F %T}"
