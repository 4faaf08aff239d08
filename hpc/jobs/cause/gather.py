"""The evidence of an attempt's end in the run's folder: errors, logs, srun's lines, exit code."""

from __future__ import annotations

import os
from pathlib import Path

from omegaconf import OmegaConf

from hpc.jobs.cause.evidence import (
    LauncherLog,
    RankLog,
    ended_orderly,
    fatal_signal,
    hung_in,
    last_error,
    parse_launcher,
)
from hpc.jobs.cause.first_cause import Evidence
from hpc.jobs.errors import SpecChanged
from hpc.jobs.regular_file import open_regular_file
from hpc.jobs.run.files import UNFIT_NODE, FailureFile, StatusFile, read_run_file
from hpc.jobs.run.folder import Run
from hpc.jobs.run.logs import log_streams

PART_BYTES = 1 << 17
"""Bytes that are read of the beginning or the end of a log."""
RANKS = 1024
"""Ranks whose logs are read."""
WATCH = ("Hang", "Late", UNFIT_NODE)
"""Types of the failures of `hpc.jobs.rank.watchdog`, and of the checks before training."""
DECIDED = ("RequeuedTooOften", "AttemptEnded")
"""Types of the failures of `hpc.jobs.cause.attempt_end`, which sum up what is read here."""


def folder_evidence(run: Run, attempt: int) -> Evidence:
    """Everything about the end of `attempt` in the run's folder; Slurm is not asked."""
    found = read_run_file(FailureFile, run.failure).value
    failure = found if found and found.attempt >= attempt else None
    if failure is not None and failure.error.type in DECIDED:
        failure = None
    by_watch = failure is not None and failure.state != "failed" and failure.error.type in WATCH
    status = read_run_file(StatusFile, run.status).value
    return Evidence(
        failure=failure.error if failure and not by_watch else None,
        watch=failure.error if failure and by_watch else None,
        hang=part_of_log(run.hang(attempt), end=False).strip(),
        rank_logs=tuple(
            _rank_log(rank, path)
            for number, rank, path in rank_streams(run)
            if number == attempt and rank < RANKS
        ),
        launcher=_launcher(run),
        exit_code=_exit_code(run.exit_code(attempt)),
        rank0_node=status.node if status else "",
        limits=_limits(run),
    )


def rank_streams(run: Run) -> list[tuple[int, int, Path]]:
    """(attempt, rank, path) of the logs."""
    named = [(stream.split(":"), path) for stream, path in log_streams(run) if ":" in stream]
    return [(int(attempt), int(rank), path) for (attempt, rank), path in named]


def _rank_log(rank: int, path: Path) -> RankLog:
    tail = part_of_log(path, end=True)
    try:
        ended_s = path.stat().st_mtime
    except OSError:
        ended_s = 0.0
    return RankLog(
        rank, last_error(tail), ended_s, ended_orderly(tail), fatal_signal(tail), hung_in(tail)
    )


def _launcher(run: Run) -> LauncherLog:
    texts = [
        part_of_log(path, end=True) for stream, path in log_streams(run) if stream == "launcher"
    ]
    return parse_launcher("\n".join(texts))


def _exit_code(path: Path) -> int | None:
    text = part_of_log(path, end=False).strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 4 else None


def _limits(run: Run) -> str:
    """The request, as the keys that a person changes."""
    try:
        config = run.spec.config
    except SpecChanged:
        return "its spec cannot be read"
    keys = ("cluster.mem_gb", "cluster.timeout_min", "cluster.signal_delay_s")
    return ", ".join(f"{key}={OmegaConf.select(config, key)}" for key in keys)


def part_of_log(path: Path, end: bool) -> str:
    """The beginning or the end of a log; empty where it cannot be read."""
    try:
        with open_regular_file(path) as file:
            if end:
                file.seek(max(0, file.seek(0, os.SEEK_END) - PART_BYTES))
            return file.read(PART_BYTES).decode(errors="replace")
    except OSError:
        return ""
