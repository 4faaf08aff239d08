"""The driver of a sweep: it watches the trials, ends bad ones early, and sends the next ones.

It remembers nothing that a file does not have: killed at any point, the same line goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from conf import ConfigError
from conf.modes import sharing_new_files
from conf.names import nearest
from hpc.jobs.cancel import cancel
from hpc.jobs.errors import JobError
from hpc.jobs.run.curve import RunCurve, read_curve
from hpc.jobs.run.folder import Run, sweep_folder
from hpc.jobs.run.metric_lines import metric_lines
from hpc.jobs.run.states import FINISHED, RUNNING
from hpc.jobs.spec.sweeper import MEDIAN, SweeperConfig
from hpc.jobs.sweep.early_stop import TrialCurve, early_stops
from hpc.jobs.sweep.ledger import one_writer, sweep_names
from hpc.jobs.sweep.search import Search
from hpc.jobs.sweep.standings import SweepStandings, TrialStanding, sweep_standings
from hpc.jobs.sweep.submission import SweepSubmission, send_missing

T = TypeVar("T")
CANCEL_S = 60.0
LEAST_FAILED = 3
"""Trials that fail, and none that does not, after which no more are sent."""


class SweepFails(JobError):
    """Every trial of a sweep fails."""


class FileReader(Generic[T]):
    """Reads files, and one again only where its time or size has changed."""

    def __init__(self, read: Callable[[Path], T]) -> None:
        self._read = read
        self._seen: dict[Path, tuple[tuple[int, int] | None, T]] = {}

    def __call__(self, path: Path) -> T:
        try:
            stat = path.stat()
            signature = (stat.st_mtime_ns, stat.st_size)
        except OSError:
            signature = None
        before = self._seen.get(path)
        if before is None or before[0] != signature:
            before = self._seen[path] = (signature, self._read(path))
        return before[1]


@dataclass(frozen=True)
class SweepView:
    """A sweep at one time."""

    standings: SweepStandings
    total: int
    """Trials that there will be."""
    done: bool
    notes: tuple[str, ...] = ()
    """Sentences of this moment alone."""


@dataclass
class SweepDriver:
    """Drives the sweep `name`, which is in `runs`; without a search all its trials are sent."""

    runs: Path
    name: str
    sweeper: SweeperConfig
    search: Search | None
    parallel: int = 1
    _sent: set[str] = field(default_factory=set)
    """Runs of this command."""
    _curve: FileReader[RunCurve] = field(default_factory=lambda: FileReader(read_curve))
    _points: dict[str, FileReader[dict[int, float]]] = field(default_factory=dict)
    """By metric."""

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The only driver of this sweep, while the block runs. Raises `UsageError`."""
        with sharing_new_files(), one_writer(sweep_folder(self.runs, self.name) / "driver.lock"):
            yield

    def advance(self) -> SweepView:
        """Stop what is bad and send what is missing, once; returns the trials as they were before.

        Raises `SweepFails` where nothing but failures came back, and what `send_missing` raises.
        """
        found = standings_so_far(self.runs, self.name, self._curve)
        self._check_metric(found)
        notes = self._stop_bad(found)
        if self.search is None:
            sent = [one for one in found.trials if one.state]
            return SweepView(found, len(sent), all(_over(one) for one in sent), tuple(notes))
        self._check_failures(found)
        step = self.search.next(found, self.parallel)
        if step.points:
            notes += self._send(step.points)
        if step.done and step.exhausted:
            notes.append("every value of the ranges was tried")
        total = step.known if step.exhausted else max(step.known, self.sweeper.trials or 0)
        return SweepView(found, total, step.done, tuple(notes))

    def _send(self, points: list[dict[str, Any]]) -> list[str]:
        assert self.search is not None
        sweep = SweepSubmission(self.name, self.search.trials(points))
        try:
            send_missing(sweep, self.runs, retry_failed=False)
        finally:
            self._sent |= {one.run.name for one in sweep.outcomes.values() if one.run}
        return sweep.notes

    def _stop_bad(self, found: SweepStandings) -> list[str]:
        """End the trials that are worse than the median; returns why one of them could not be."""
        metric = found.metric
        if self.sweeper.stop != MEDIAN or metric is None:
            return []
        if self.sweeper.metric not in (None, metric):  # no trial has logged it yet
            return []
        points = self._points.setdefault(
            metric, FileReader(lambda path: metric_points(path, metric))
        )
        curves = [
            TrialCurve(
                one.state.run,
                points(Run(self.runs / one.state.run).metrics),
                one.state.steps,
                one.state.state == RUNNING,
            )
            for one in found.trials
            if one.state
        ]
        notes = []
        for stop in early_stops(
            curves,
            metric,
            found.lower_is_better is not False,
            self.sweeper.warmup_steps,
            self.sweeper.startup_trials,
        ):
            try:
                cancel(Run(self.runs / stop.run), CANCEL_S, stop.sentence)
            except JobError as error:  # it is tried again the next time
                notes.append(str(error))
        return notes

    def _check_metric(self, found: SweepStandings) -> None:
        """Raise `ConfigError` where trials have finished and none has the metric of the line."""
        metric = self.sweeper.metric
        finished = any(one.state_word == FINISHED for one in found.trials)
        if metric is not None and finished and metric not in found.logged:
            raise ConfigError(
                f"sweeper.metric={metric}: a trial has finished, and none has such a metric. "
                f"{nearest(metric, found.logged)}. Type the line again with another one"
            )

    def _check_failures(self, found: SweepStandings) -> None:
        """Raise `SweepFails` where this command's trials fail, and no other trial is any better."""
        over = [one for one in found.trials if one.state and _over(one)]
        failed = [
            one
            for one in over
            if one.state and one.state.run in self._sent and one.state_word != FINISHED
        ]
        if len(failed) < max(LEAST_FAILED, self.parallel):
            return
        if any(one.state_word == FINISHED or one.stopped_early for one in over):
            return
        first = min(failed, key=lambda one: one.number).state
        assert first is not None
        raise SweepFails(
            f"the first {len(failed)} trials of the sweep {self.name} ended without finishing "
            f"({first.run}: {first.detail or first.state}), so no more are sent. "
            f"See: lockgate why {first.run}"
        )


def standings_so_far(
    runs: Path, name: str, curve_of: Callable[[Path], RunCurve] = read_curve
) -> SweepStandings:
    """The standings of a sweep that need not be there yet."""
    if name not in sweep_names(runs):
        return SweepStandings(name, None, None, ())
    return sweep_standings(runs, name, curve_of=curve_of)


def metric_points(path: Path, metric: str) -> dict[int, float]:
    """The finite values of `metric` by step; empty for a file that is not there or not readable."""
    points: dict[int, float] = {}
    try:
        for line in metric_lines(path):
            value = line.values.get(metric) if line else None
            if line is not None and value is not None:
                points[line.step] = value
    except OSError:
        return {}
    return points


def _over(one: TrialStanding) -> bool:
    return one.state is not None and one.state.over
