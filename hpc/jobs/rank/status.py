"""The job's own report: rank 0 writes status.json, the first rank that fails writes failure.json.

Two files, so that no rank writes over another; `run_files.read_status` lays one over the other.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, Literal

from hpc.jobs.rank.rendezvous import Rank
from hpc.jobs.run.files import (
    FailureFile,
    RankFailure,
    StatusFile,
    read_run_file,
    utc_now,
    write_run_file,
)
from hpc.jobs.run.folder import Run
from hpc.jobs.run.metrics import last_metrics
from serving.artifact.candidate import CandidateError, read_candidate


def start_attempt(run: Run, rank: Rank) -> None:
    """Record a new attempt as running; the first one's start is kept as the run's start."""
    before = read_run_file(StatusFile, run.status).value
    now = utc_now()
    content = StatusFile(
        run=run.name,
        state="running",
        attempt=rank.attempt,
        job_id=rank.job_id,
        ranks=rank.world_size,
        node=os.environ.get("SLURMD_NODENAME", ""),
        started=before.started if before and before.started else now,
        attempt_started=now,
    )
    write_run_file(run.status, content)


def end_attempt(run: Run, rank: Rank, state: Literal["finished", "requeued", "stopped"]) -> None:
    """Record that the attempt ended in `state`; a rank's failure still wins over it."""
    before = read_run_file(StatusFile, run.status).value or StatusFile("running", rank.attempt)
    content = replace(
        before, run=run.name, state=state, attempt=rank.attempt, job_id=rank.job_id,
        ended=utc_now(), metrics=final_metrics(run),
    )  # fmt: skip
    write_run_file(run.status, content)


def fail_attempt(run: Run, rank: Rank, error: BaseException) -> None:
    """Record this rank's failure, and so the attempt's, unless another rank failed before it."""
    before = read_run_file(FailureFile, run.failure).value
    if before is None or before.attempt < rank.attempt:
        content = FailureFile(
            run=run.name,
            attempt=rank.attempt,
            job_id=rank.job_id,
            ended=utc_now(),
            error=rank_failure(error, rank.rank),
            metrics=final_metrics(run),
        )
        write_run_file(run.failure, content)


def rank_failure(error: BaseException, rank: int) -> RankFailure:
    """The type of `error`, its first five lines, and the rank that raised it."""
    lines = str(error).strip().splitlines()[:5]
    return RankFailure(type=type(error).__name__, message="\n".join(lines), rank=rank)


def final_metrics(run: Run) -> dict[str, Any]:
    """The validation metrics of the candidate, or else the last logged values."""
    try:
        return dict(read_candidate(run.folder / "candidate").metrics) or last_metrics(run.metrics)
    except CandidateError:  # there is none yet, or it is of another version
        return last_metrics(run.metrics)
