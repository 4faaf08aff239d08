"""The bad end of a run, from its folder, from srun's lines in it and from sacct."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hpc.jobs.cause.first_cause import first_cause
from hpc.jobs.cause.gather import folder_evidence, part_of_log, rank_streams
from hpc.jobs.cause.job_end import ENDS_FORMAT, JobEnd, parse_ends
from hpc.jobs.errors import SchedulerUnavailable
from hpc.jobs.run.files import AttemptEndFile, RunRecord, read_run_file
from hpc.jobs.run.folder import Run
from hpc.jobs.run.metrics import last_metrics
from hpc.jobs.run.states import RunState
from hpc.jobs.slurm.backend import KIND, OURS
from hpc.jobs.slurm.commands import query
from hpc.jobs.why.explanation import Ending
from hpc.jobs.why.progress import AttemptStart, Progress, attempt_start, progress

EARLIER = 5
"""Attempts whose ends are shown."""
Fault = Callable[[Path], str | None]


def ending(record: RunRecord, state: RunState, fault: Fault) -> tuple[Ending, tuple[str, ...]]:
    """The bad end of a run, and the parts that stay unknown; `fault` verifies a checkpoint."""
    run, unanswered = record.run, []
    streams = rank_streams(run)
    attempt = max([state.attempt, *(number for number, _, _ in streams)], default=0)
    ends: list[JobEnd] = []
    if record.kind == KIND and state.job_id:
        try:
            ends = _ends(record, state)
        except SchedulerUnavailable as error:
            unanswered.append(f"sacct: {error}")
    evidence = replace(
        folder_evidence(run, attempt),
        ends=ends,
        slurm_state=slurm_state(ends, state.detail) if record.kind == KIND else "",
        detail=state.detail,
    )
    first = next((path for number, rank, path in streams if (number, rank) == (attempt, 0)), None)
    start = attempt_start(part_of_log(first, end=False)) if first else AttemptStart(None, ())
    ended = state.ended or next((end.ended for end in reversed(ends) if end.ended), None)
    return Ending(first_cause(evidence), attempt, ended, start, kept(run, fault)), tuple(unanswered)


def attempt_ends(run: Run, newest: int) -> tuple[AttemptEndFile, ...]:
    """The recorded ends of the last EARLIER attempts up to `newest`, the oldest first."""
    numbers = range(max(1, newest - EARLIER + 1), newest + 1)
    found = (read_run_file(AttemptEndFile, run.attempt_end(number)).value for number in numbers)
    return tuple(end for end in found if end is not None)


def kept(run: Run, fault: Fault) -> Progress:
    """The progress of a run that its checkpoints keep."""
    step = last_metrics(run.metrics).get("step")
    last_step = step if type(step) is int and step > 0 else 0
    return progress(run.checkpoints, last_step, fault)


def slurm_state(ends: list[JobEnd], detail: str) -> str:
    """Slurm's long word for the job's end: of sacct, or else the one that `detail` begins with."""
    job = next((end for end in reversed(ends) if "." not in end.step), None)
    if job is not None:
        return job.state
    words = detail.upper()
    return next((word for word in OURS if words.startswith(word.replace("_", " "))), "")


def _ends(record: RunRecord, state: RunState) -> list[JobEnd]:
    command = ["sacct", "--noheader", "--parsable2", f"--user={record.user}"]
    command += [f"--jobs={state.job_id}", f"--format={ENDS_FORMAT}"]
    variables = {"SLURM_CONF": record.slurm_conf} if record.slurm_conf else {}
    text = query(command, variables)
    # An id is given out again when a controller's state is lost; only the job's row has its name.
    return parse_ends(text) if f"|{record.job_name}\n" in f"{text}\n" else []
