"""The answer of `lockgate why` as a value: what a run waits for, or how it ended."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from hpc.jobs.cause.first_cause import Cause
from hpc.jobs.run.files import AttemptEndFile
from hpc.jobs.why.accounting import WaitHistory
from hpc.jobs.why.progress import AttemptStart, Progress
from hpc.jobs.why.reasons import Reason


@dataclass(frozen=True)
class Waiting:
    """A run in the queue of a scheduler. Times are ISO, in UTC."""

    reason: Reason
    detail: str
    """Slurm's own sentence beside the reason; may be empty."""
    since: str | None
    blocked_by: tuple[str, ...] = ()
    expected_start: str | None = None
    expected_nodes: str = ""
    history: WaitHistory | None = None
    fits_now: bool = False
    """True where the request as it is has room now: only the order of the queue holds it."""
    smaller: tuple[str, ...] = ()
    """Settings of `lockgate train` that make a request which fits into what is free now."""


@dataclass(frozen=True)
class Ending:
    """A run that ended badly."""

    cause: Cause
    attempt: int
    ended: str | None
    start: AttemptStart
    progress: Progress


@dataclass(frozen=True)
class Explanation:
    """The answer on one run."""

    run: str
    job_id: str
    """The scheduler's id; empty for none."""
    state: str
    sentence: str
    """The answer in one sentence, true without the rest."""
    waiting: Waiting | None = None
    ending: Ending | None = None
    attempts: tuple[AttemptEndFile, ...] = ()
    """The recorded ends of the newest attempts, the oldest first."""
    unanswered: tuple[str, ...] = ()
    """Parts that could not be found out, each with the reason."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as in `lockgate why --json`."""
        content = asdict(self)
        if self.ending:
            content["ending"]["progress"]["lost_steps"] = self.ending.progress.lost_steps
        return content
