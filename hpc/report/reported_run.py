"""A run as a report has it: its state, spec, metrics and times, read from its folder once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hpc.jobs.errors import SpecChanged
from hpc.jobs.queue import run_states
from hpc.jobs.regular_file import open_regular_file
from hpc.jobs.run.files import RunRecord, read_record
from hpc.jobs.run.folder import Run
from hpc.jobs.run.states import RunState
from hpc.jobs.spec.job_spec import JobSpec
from hpc.jobs.spec.settings import flat_settings
from hpc.report.logged_metrics import LATEST, LoggedMetrics, logged_metrics
from hpc.report.timeline import AttemptTrace, RunTimes
from serving.artifact import candidate

HEAD_BYTES = 1 << 16
MOST_ATTEMPTS = 200
RESUMED = re.compile(rb"^resumed after step ([0-9]{1,15})$", re.MULTILINE)
RANK0 = re.compile(r"([0-9]{1,4})-0\.log")
CLOCK_S = 60.0
"""A file's time counts only this near to the run's own times: a copied folder has others."""


@dataclass(frozen=True)
class ReportedRun:
    """Everything of one run that a page may show."""

    state: RunState
    folder: Path
    spec: JobSpec | None
    config: Mapping[str, object]
    """The frozen config by dotted key, without the site; secrets are references."""
    metrics: LoggedMetrics
    times: RunTimes
    record: RunRecord

    @property
    def name(self) -> str:
        return self.state.run

    @property
    def resumed_steps(self) -> list[int]:
        """The steps after which an attempt went on."""
        return [one.resumed_step for one in self.times.attempts if one.number > 1]


def reported_runs(runs: Sequence[Run]) -> list[ReportedRun]:
    """The runs, with one query to each cluster for all that may have changed."""
    return [_reported(run, state) for run, state in zip(runs, run_states(runs), strict=True)]


def _reported(run: Run, state: RunState) -> ReportedRun:
    try:
        spec = run.spec
        config = flat_settings({**spec.content()["config"], "site": {}})  # the place, not the run
    except SpecChanged:  # the state's detail has the sentence
        spec, config = None, {}
    metrics, record = logged_metrics(run.metrics), read_record(run)
    times = _run_times(run, record, state, metrics)
    return ReportedRun(state, run.folder, spec, config, metrics, times, record)


def _run_times(run: Run, record: RunRecord, state: RunState, metrics: LoggedMetrics) -> RunTimes:
    submitted, ended = _moment(state.submitted), _moment(state.ended)
    newest = max((line.at for line in metrics.lines), default=submitted)
    least, most = submitted, ended if ended is not None else newest
    bounds = (least, most)
    attempts = []
    newest_start = _moment(record.status.attempt_started if record.status else None)
    for number, path in _attempt_logs(run):
        began = _moment(state.started) if number == 1 else None
        if number == state.attempt and newest_start is not None:
            began = newest_start
        last = _file_time(run.exit_code(number), bounds) or _file_time(path, bounds)
        if number == state.attempt:
            last = ended
        attempts.append(AttemptTrace(number, _resumed_step(path), began, last))
    if not attempts and metrics.lines:  # the logs may be closed to this user
        attempts = [AttemptTrace(1, 0, _moment(state.started), ended)]
    written = _file_time(run.folder / "candidate" / candidate.FILE, bounds)
    return RunTimes(submitted, ended, written, tuple(attempts))


def _attempt_logs(run: Run) -> list[tuple[int, Path]]:
    """(attempt, log of rank 0) of the newest attempts, in order."""
    try:
        names = [(RANK0.fullmatch(path.name), path) for path in run.logs.iterdir()]
    except OSError:
        return []
    return sorted((int(match[1]), path) for match, path in names if match)[-MOST_ATTEMPTS:]


def _resumed_step(log: Path) -> int:
    """The step after which the attempt of this log went on; 0 where its head names none."""
    try:
        with open_regular_file(log) as file:
            match = RESUMED.search(file.read(HEAD_BYTES))
    except OSError:
        return 0
    return int(match[1]) if match else 0


def _file_time(path: Path, bounds: tuple[float | None, float | None]) -> float | None:
    least, most = bounds
    try:
        at = path.stat().st_mtime
    except OSError:
        return None
    if least is None or most is None or not least - CLOCK_S <= at <= most + CLOCK_S:
        return None
    return at


def _moment(text: str | None) -> float | None:
    """Seconds since 1970 of an ISO time with a zone; None for anything else."""
    try:
        found = datetime.fromisoformat(text or "")
        at = found.timestamp() if found.tzinfo else 0.0
    except (ValueError, OverflowError):
        return None
    return at if 0 < at < LATEST else None
