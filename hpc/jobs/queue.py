"""The states of runs, each by its backend and its own folder.

A file that cannot be read, or a scheduler that does not answer, makes that run's state "unknown",
with the reason; nothing is guessed, and no run hides another.
"""

from __future__ import annotations

from collections.abc import Sequence

from conf.names import shown
from hpc.jobs.backend import BACKENDS
from hpc.jobs.run.files import RunRecord
from hpc.jobs.run.folder import Run
from hpc.jobs.run.reading import RunReading, read_runs
from hpc.jobs.run.states import CANCELLED, NOT_SUBMITTED, UNKNOWN, RunState, Standing


def run_states(runs: Sequence[Run]) -> list[RunState]:
    """The state of each run, with one query to each cluster for all that may have changed."""
    readings = read_runs(runs)
    standings: dict[str, Standing] = {}
    for kind, backend in BACKENDS.items():
        group = [one.record for one in readings if one.record.kind == kind]
        standings |= backend.standings(group) if group else {}
    return [
        _run_state(one, standings.get(one.record.run.name) or _unplaced(one.record))
        for one in readings
    ]


def run_state(run: Run) -> RunState:
    """The state of one run."""
    return run_states([run])[0]


def _unplaced(record: RunRecord) -> Standing:
    """The standing of a run without a backend of ours."""
    if record.kind is None and not record.problems:
        return Standing(NOT_SUBMITTED, "no job.json, and no spec that can be read", "job.json")
    if record.kind is None:
        return Standing(UNKNOWN, "no file that can be read names its scheduler", "job.json")
    return Standing(UNKNOWN, f"no scheduler of kind {shown(record.kind)} is known here", "job.json")


def _run_state(reading: RunReading, standing: Standing) -> RunState:
    record = reading.record
    job, status = record.job, record.status
    origin = f"({reading.origin})" if reading.origin else ""
    detail = standing.detail
    if standing.state == CANCELLED and record.early_stop:
        detail = record.early_stop
    return RunState(
        run=record.run.name,
        task=reading.task,
        state=standing.state,
        detail="; ".join(part for part in (detail, origin, *reading.problems) if part),
        source=standing.source,
        job_id=job.job_id if job else standing.job_id,
        attempt=status.attempt if status else 0,
        step=reading.step,
        steps=reading.steps,
        loss=reading.loss,
        submitted=job.submitted if job else None,
        started=status.started if status else None,
        ended=status.ended if status else None,
        sweep=record.trial.sweep if record.trial else None,
        values=record.trial.values if record.trial else None,
        goes_on=standing.goes_on,
    )
