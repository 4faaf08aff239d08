"""The states of a run, in the words of `lockgate ls --json`, and a state with its evidence."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

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
    goes_on: str | None = None
    """ISO time of a waiting run's start, as far as the scheduler has one."""


@dataclass(frozen=True)
class RunState:
    """The state of a run with its progress; `source` is the file or program it was read from."""

    run: str
    task: str
    state: str
    detail: str
    source: str
    job_id: str
    attempt: int
    step: int
    steps: int
    loss: float | None
    submitted: str | None
    started: str | None
    ended: str | None
    sweep: str | None = None
    """The sweep that it is a trial of."""
    values: dict[str, Any] | None = None
    """The swept settings of a trial by dotted key; None for a run of no sweep."""
    goes_on: str | None = None
    """Time of a waiting run's start, as far as its scheduler has one."""

    @property
    def over(self) -> bool:
        return self.state in OVER

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as in `lockgate ls --json`."""
        return asdict(self)
