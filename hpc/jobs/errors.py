"""What can go wrong with a job, as sentences for the person at the keyboard.

`conf.errors` has the exit codes; `conf.ConfigError` counts as a person's mistake too.
"""

from __future__ import annotations

from conf.errors import MISTAKE, UNREACHABLE, LockgateError


class JobError(LockgateError):
    """A job could not do what was asked; nothing half-done is left behind."""


class PersonsMistake(JobError):
    """Something that the person can put right on the command line."""

    exit_code = MISTAKE


class UnknownRun(PersonsMistake):
    """No run of this name; the message names the nearest."""


class DatasetMissing(PersonsMistake):
    """The task's dataset was not prepared."""


class SecretInConfig(PersonsMistake):
    """A secret would have been written into the spec."""


class SchedulerUnavailable(JobError):
    """Slurm is not installed here, or its controller does not answer."""

    exit_code = UNREACHABLE


class SubmitRefused(JobError):
    """The scheduler answered, and said no."""


class SpecMoved(JobError):
    """The spec, the snapshot or the dataset is not what was frozen at submit."""
