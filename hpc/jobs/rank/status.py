"""The job's own report: rank 0 writes status.json, the first rank that fails writes failure.json.

Two files, so that no rank writes over another; `run_files.read_status` lays one over the other. A
rank's own error takes the place of a neighbour's lost connection.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, Literal

from hpc.jobs.rank.rendezvous import Rank
from hpc.jobs.run.checkpoints import kept_checkpoints
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
    now, newest = utc_now(), newest_checkpoint(run)
    content = StatusFile(
        run=run.name,
        state="running",
        attempt=rank.attempt,
        job_id=rank.job_id,
        ranks=rank.world_size,
        node=os.environ.get("SLURMD_NODENAME", ""),
        started=before.started if before and before.started else now,
        attempt_started=now,
        began_after=newest,
        stalled=stalled_before(before, rank.attempt, newest),
    )
    write_run_file(run.status, content)


def stalled_before(before: StatusFile | None, attempt: int, newest: int) -> int:
    """Attempts in a row before `attempt` that brought no newer checkpoint than they began from.

    `before` is the newest attempt on record, and `newest` the step of the newest checkpoint now.
    Attempts of which nothing is on record were ended by Slurm itself, and are counted too.
    """
    if before is None or before.state == "failed":  # a person had it go on
        return 0
    if before.ended is not None:  # its end has counted it
        return before.stalled + attempt - before.attempt - 1
    return 0 if newest > before.began_after else before.stalled + attempt - before.attempt


def resume_attempt(run: Run, step: int) -> None:
    """Record that the attempt goes on after `step`: newer checkpoints may not have verified."""
    before = read_run_file(StatusFile, run.status).value
    if before is not None and before.began_after != step:
        write_run_file(run.status, replace(before, began_after=step))


def newest_checkpoint(run: Run) -> int:
    """Step of the newest sealed checkpoint of the run; 0 for none."""
    return max((one.step for one in kept_checkpoints(run)), default=0)


def end_attempt(run: Run, rank: Rank, state: Literal["finished", "requeued", "stopped"]) -> None:
    """Record that the attempt ended in `state`; a rank's failure still wins over it."""
    before = read_run_file(StatusFile, run.status).value or StatusFile("running", rank.attempt)
    content = replace(
        before, run=run.name, state=state, attempt=rank.attempt, job_id=rank.job_id,
        ended=utc_now(), metrics=final_metrics(run),
    )  # fmt: skip
    write_run_file(run.status, content)


def fail_attempt(
    run: Run, rank: Rank, error: BaseException, state: Literal["failed", "ending"] = "failed"
) -> None:
    """Record this rank's failure, and so the attempt's, unless another rank failed before it."""
    record_failure(run, rank, rank_failure(error, rank.rank), state)


def record_failure(
    run: Run, rank: Rank, error: RankFailure, state: Literal["failed", "ending"]
) -> None:
    """Record `error` as the attempt's, unless there is one that says as much.

    `ending` is for one that another rank may have caused: the end of the attempt decides.
    """
    before = read_run_file(FailureFile, run.failure).value
    known = before is not None and before.attempt >= rank.attempt
    if before is None or not known or (before.state == "ending" and state == "failed"):
        content = FailureFile(
            run=run.name,
            attempt=rank.attempt,
            job_id=rank.job_id,
            ended=utc_now(),
            error=error,
            state=state,
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
