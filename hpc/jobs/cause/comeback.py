"""The decision after an attempt: by its first cause and its progress, a run comes back or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hpc.jobs.cause.first_cause import HANG, KILLED, LATE, LOST, MEMORY, NODE, Cause
from hpc.jobs.rank.exit_codes import HANG as HANG_CODE
from hpc.jobs.rank.exit_codes import LOST_RANK, REQUEUE, TERMINATED, TOO_OFTEN, TRAINING_FAILED

COMES_BACK = (KILLED, LOST, HANG, NODE, MEMORY, LATE)
"""Kinds of causes that another attempt may not meet again."""
OF_ONE_RANK = (REQUEUE, LOST_RANK, HANG_CODE)
"""Exit codes that are no end of a job."""


@dataclass(frozen=True)
class Comeback:
    """The decision after an attempt."""

    outcome: Literal["finished", "requeued", "stopped", "failed"]
    exit_code: int
    """Of the job."""
    sentence: str
    """The first cause, with the reason where the run does not come back although it might."""
    too_often: bool = False


def decide(
    ended: str,
    cause: Cause | None,
    exit_code: int,
    stalled: int,
    checkpoint_step: int,
    max_requeues: int,
    cancelled: bool,
) -> Comeback:
    """The decision on what follows an attempt.

    `ended` is the state that rank 0 wrote last, `cause` the first cause of a bad end (None for an
    orderly one), `exit_code` the job's without us, `stalled` the number of attempts in a row, with
    this one, that brought no checkpoint newer than the one of `checkpoint_step`.
    """
    if ended == "finished":
        return Comeback("finished", 0, "It finished.")
    if ended == "stopped" and cause is None:
        return Comeback("stopped", TERMINATED, "It was told to end, and saved.")
    sentence = cause.sentence if cause else "It saved at its time limit or preemption."
    if cause is not None and cause.kind not in COMES_BACK:
        code = TRAINING_FAILED if exit_code in OF_ONE_RANK else exit_code
        return Comeback("failed", code, sentence)
    if cancelled:
        return Comeback("failed", TERMINATED, f"{sentence} It was cancelled.")
    if max_requeues == 0:
        reason = f"{sentence} It gets one attempt (cluster.max_requeues=0)."
        return Comeback("failed", TOO_OFTEN, reason, too_often=True)
    if stalled > max_requeues:
        newest = f"than that of step {checkpoint_step}" if checkpoint_step else "at all"
        reason = (
            f"{stalled} attempts in a row brought no newer checkpoint {newest}, and "
            f"cluster.max_requeues allows {max_requeues}. The last one: {sentence}"
        )
        return Comeback("failed", TOO_OFTEN, reason, too_often=True)
    return Comeback("requeued", REQUEUE, sentence)
