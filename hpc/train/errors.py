"""Errors that end training early, as sentences; the job records them in the run's folder."""

from __future__ import annotations

from conf.errors import LockgateError


class Diverged(LockgateError):
    """The loss is not a number any more."""


class CheckpointError(LockgateError):
    """A checkpoint could not be written, or does not fit this job."""
