"""The bad end of a run, from its folder, from srun's lines in it and from sacct."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from omegaconf import OmegaConf

from hpc.jobs.errors import SchedulerUnavailable, SpecChanged
from hpc.jobs.regular_file import open_regular_file
from hpc.jobs.run.files import FailureFile, RunRecord, read_run_file
from hpc.jobs.run.folder import Run
from hpc.jobs.run.logs import log_streams
from hpc.jobs.run.metrics import last_metrics
from hpc.jobs.run.states import RunState
from hpc.jobs.slurm.backend import KIND, OURS
from hpc.jobs.slurm.commands import query
from hpc.jobs.why.accounting import ENDS_FORMAT, JobEnd, parse_ends
from hpc.jobs.why.cause import Evidence, first_cause
from hpc.jobs.why.evidence import (
    LauncherLog,
    RankLog,
    ended_orderly,
    last_error,
    parse_launcher,
)
from hpc.jobs.why.explanation import Ending
from hpc.jobs.why.progress import AttemptStart, Progress, attempt_start, progress

PART_BYTES = 1 << 17
"""Bytes that are read of the beginning or the end of a log."""
RANKS = 1024
"""Ranks whose logs are read."""

Fault = Callable[[Path], str | None]


def ending(record: RunRecord, state: RunState, fault: Fault) -> tuple[Ending, tuple[str, ...]]:
    """The bad end of a run, and the parts that stay unknown; `fault` verifies a checkpoint."""
    run, unanswered = record.run, []
    streams = _rank_logs(run)
    attempt = max([state.attempt, *(number for number, _, _ in streams)], default=0)
    ends: list[JobEnd] = []
    if record.kind == KIND and state.job_id:
        try:
            ends = _ends(record, state)
        except SchedulerUnavailable as error:
            unanswered.append(f"sacct: {error}")
    failure = read_run_file(FailureFile, run.failure).value
    evidence = Evidence(
        failure=failure.error if failure and failure.attempt >= attempt else None,
        rank_logs=tuple(
            _rank_log(rank, path)
            for number, rank, path in streams
            if number == attempt and rank < RANKS
        ),
        launcher=_launcher(run),
        ends=ends,
        slurm_state=slurm_state(ends, state.detail) if record.kind == KIND else "",
        exit_code=_exit_code(run.exit_code(attempt)),
        rank0_node=record.status.node if record.status else "",
        limits=_limits(run),
        detail=state.detail,
    )
    first = next((path for number, rank, path in streams if (number, rank) == (attempt, 0)), None)
    start = attempt_start(_part(first, end=False)) if first else AttemptStart(None, ())
    ended = state.ended or next((end.ended for end in reversed(ends) if end.ended), None)
    return Ending(first_cause(evidence), attempt, ended, start, kept(run, fault)), tuple(unanswered)


def kept(run: Run, fault: Fault) -> Progress:
    """The progress of a run that its checkpoints keep."""
    step = last_metrics(run.metrics).get("step")
    last_step = step if type(step) is int and step > 0 else 0
    # Where hpc.train.loop keeps them.
    return progress(run.folder / "checkpoints", last_step, fault)


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


def _rank_logs(run: Run) -> list[tuple[int, int, Path]]:
    """(attempt, rank, path) of the logs."""
    named = [(stream.split(":"), path) for stream, path in log_streams(run) if ":" in stream]
    return [(int(attempt), int(rank), path) for (attempt, rank), path in named]


def _rank_log(rank: int, path: Path) -> RankLog:
    tail = _part(path, end=True)
    try:
        ended_s = path.stat().st_mtime
    except OSError:
        ended_s = 0.0
    return RankLog(rank, last_error(tail), ended_s, ended_orderly(tail))


def _launcher(run: Run) -> LauncherLog:
    texts = [_part(path, end=True) for stream, path in log_streams(run) if stream == "launcher"]
    return parse_launcher("\n".join(texts))


def _exit_code(path: Path) -> int | None:
    text = _part(path, end=False).strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 4 else None


def _limits(run: Run) -> str:
    """The request, as the keys that a person changes."""
    try:
        config = run.spec.config
    except SpecChanged:
        return "its spec cannot be read"
    keys = ("cluster.mem_gb", "cluster.timeout_min", "cluster.signal_delay_s")
    return ", ".join(f"{key}={OmegaConf.select(config, key)}" for key in keys)


def _part(path: Path, end: bool) -> str:
    """The beginning or the end of a log; empty where it cannot be read."""
    try:
        with open_regular_file(path) as file:
            if end:
                file.seek(max(0, file.seek(0, os.SEEK_END) - PART_BYTES))
            return file.read(PART_BYTES).decode(errors="replace")
    except OSError:
        return ""
