"""A run as a report has it: its state, spec, metrics and times, read from its folder once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc.jobs.errors import SpecChanged
from hpc.jobs.queue import run_states
from hpc.jobs.run.files import RunRecord, read_record
from hpc.jobs.run.folder import Run
from hpc.jobs.run.operators import OperatorRow, operator_rows, read_operators
from hpc.jobs.run.states import RunState
from hpc.jobs.run.timeline import read_timeline
from hpc.jobs.spec.job_spec import JobSpec
from hpc.jobs.spec.settings import flat_settings
from hpc.report.logged_metrics import LoggedMetrics, logged_metrics
from hpc.report.timeline import RunTimes, run_times


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
    operators: Sequence[OperatorRow] = ()

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
    times = run_times(read_timeline(record))
    operators = operator_rows(read_operators(run)[0])
    return ReportedRun(state, run.folder, spec, config, metrics, times, record, operators)
