"""The states of a run, in the words of `lockgate ls --json`, and a state with its evidence."""

from __future__ import annotations

from dataclasses import dataclass

QUEUED, RUNNING, REQUEUED, ENDING = "queued", "running", "requeued", "ending"
FINISHED, FAILED, CANCELLED, STOPPED = "finished", "failed", "cancelled", "stopped"
UNKNOWN, NOT_SUBMITTED = "unknown", "not submitted"
OVER = (FINISHED, FAILED, CANCELLED, STOPPED, NOT_SUBMITTED)


@dataclass(frozen=True)
class Standing:
    """The state of a run as its backend found it."""

    state: str
    detail: str
    """Why it is so, in words for people; may be empty."""
    source: str
    """The file or program that the state was read from, as in status.json or squeue."""
    job_id: str = ""
    """The scheduler's id where the scheduler named one, else empty."""
