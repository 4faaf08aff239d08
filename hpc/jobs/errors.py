"""Errors of jobs, as sentences for the person at the keyboard.

`conf.errors` has the root and the exit codes; `conf.ConfigError` counts as a usage error too.
"""

from __future__ import annotations

from conf.errors import MISTAKE, UNREACHABLE, LockgateError


class JobError(LockgateError):
    """An operation on a job failed; nothing half-done is left behind."""


class UsageError(JobError):
    """Something that the person can put right on the command line."""

    exit_code = MISTAKE


class UnknownRun(UsageError):
    """No run of this name; the message names the nearest."""


class DatasetMissing(UsageError):
    """The task's dataset was not prepared."""


class SecretInConfig(UsageError):
    """A secret would have been written into the spec."""


class SchedulerUnavailable(JobError):
    """Slurm is not installed here, or its controller does not answer."""

    exit_code = UNREACHABLE


class SubmitRefused(JobError):
    """The scheduler answered, and refused the job."""


class SpecChanged(JobError):
    """The spec, the snapshot or the dataset is not what was frozen at submit."""


def error_line(text: str) -> str:
    """The errors in a failed command's output as one line, without its own name before each."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    errors = [line.split("error: ", 1)[1] for line in lines if "error: " in line]
    return "; ".join(dict.fromkeys(errors or lines[-1:])) or "failed without a word"
