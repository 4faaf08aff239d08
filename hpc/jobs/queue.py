"""The states of runs, each by its backend and its own folder.

A file that cannot be read, or a scheduler that does not answer, makes that run's state "unknown",
with the reason; nothing is guessed, and no run hides another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from omegaconf import OmegaConf

from conf.names import shown
from hpc.jobs.backend import BACKENDS
from hpc.jobs.errors import SpecChanged
from hpc.jobs.run.files import RunRecord, read_record
from hpc.jobs.run.folder import Run
from hpc.jobs.run.metrics import last_metrics
from hpc.jobs.run.states import NOT_SUBMITTED, UNKNOWN, RunState, Standing


def run_states(runs: Sequence[Run]) -> list[RunState]:
    """The state of each run, with one query to each cluster for all that may have changed."""
    records = [read_record(run) for run in runs]
    standings: dict[str, Standing] = {}
    for kind, backend in BACKENDS.items():
        group = [record for record in records if record.kind == kind]
        standings |= backend.standings(group) if group else {}
    return [
        _run_state(record, standings.get(record.run.name) or _unplaced(record))
        for record in records
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


def _run_state(record: RunRecord, standing: Standing) -> RunState:
    run, job, status = record.run, record.job, record.status
    metrics = last_metrics(run.metrics)
    task, steps, problems = "?", 0, list(record.problems)
    try:
        task = run.spec.task
        steps = _whole(OmegaConf.select(run.spec.config, "steps"))
    except SpecChanged as error:
        problems.append(str(error))
    loss = metrics.get("loss")
    return RunState(
        run=run.name,
        task=task,
        state=standing.state,
        detail="; ".join(part for part in (standing.detail, *problems) if part),
        source=standing.source,
        job_id=job.job_id if job else standing.job_id,
        attempt=status.attempt if status else 0,
        step=_whole(metrics.get("step")),
        steps=steps,
        loss=_number(loss),
        submitted=job.submitted if job else None,
        started=status.started if status else None,
        ended=status.ended if status else None,
        sweep=record.trial.sweep if record.trial else None,
        values=record.trial.values if record.trial else None,
    )


def _number(value: object) -> float | None:
    """`value` as a number, None for anything that is none."""
    try:
        return float(value) if isinstance(value, int | float) else None
    except OverflowError:  # JSON's integers have no end
        return None


def _whole(value: object) -> int:
    """`value` as a count, 0 for anything that is none."""
    number = _number(value)
    return int(number) if number is not None and math.isfinite(number) else 0
