"""What ends training early, as sentences; the job reports them and the run can be looked at."""

from __future__ import annotations

from hpc.jobs.errors import JobError


class Diverged(JobError):
    """The loss is not a number any more."""


class CheckpointError(JobError):
    """A checkpoint could not be written, or does not fit this job."""
