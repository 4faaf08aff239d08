"""A run's states over time, as far as its folder has them: submitted, attempts, its end.

Times are of the run's own files, and else of when a file was last written: an attempt that was
neither the first nor the newest left no start. Nothing is guessed; what no file has is None.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hpc.jobs.regular_file import read_regular_file
from hpc.jobs.run.files import CancelFile, RunRecord, read_run_file

ATTEMPT_FILE = re.compile(r"([0-9]{1,6})(?:-[0-9]{1,6}\.log|\.exit)", re.ASCII)
"""`<attempt>-<rank>.log` and `<attempt>.exit`."""
EXIT_BYTES = 16


@dataclass(frozen=True)
class RunAttempt:
    """One start of a run's job; times are ISO, to the second."""

    number: int
    started: str | None
    ended: str | None
    exit_code: int | None
    """Of the first rank that ended with one; None for an attempt that goes on or finished."""


@dataclass(frozen=True)
class RunTimeline:
    """The times of one run, ISO; None for what has not happened, or is in no file."""

    submitted: str | None
    attempts: tuple[RunAttempt, ...]
    cancelled: str | None
    candidate: str | None
    """The candidate's files were written."""

    @property
    def requeues(self) -> int:
        """Attempts after the first."""
        return max((one.number for one in self.attempts), default=1) - 1

    @property
    def queued_seconds(self) -> float | None:
        """Wait before the first attempt."""
        first = self.attempts[0] if self.attempts else None
        return seconds_between(self.submitted, first.started if first else None)


def read_timeline(record: RunRecord) -> RunTimeline:
    """The time line of a run; raises nothing for what stands in its folder."""
    run, status = record.run, record.status
    written = _last_written(run.logs)
    numbers = {*written, *([status.attempt] if status else [])}
    cancel = read_run_file(CancelFile, run.cancelled).value
    return RunTimeline(
        submitted=(record.job.submitted or None) if record.job else None,
        attempts=tuple(_attempt(record, number, written) for number in sorted(numbers)),
        cancelled=cancel.at if cancel else None,
        candidate=_modified(run.folder / "candidate"),
    )


def seconds_between(start: str | None, end: str | None) -> float | None:
    """Seconds from one ISO time to another; None where one is missing, or no time with a zone."""
    try:
        return (
            datetime.fromisoformat(end or "") - datetime.fromisoformat(start or "")
        ).total_seconds()
    except (ValueError, TypeError):
        return None


def _attempt(record: RunRecord, number: int, written: dict[int, str]) -> RunAttempt:
    status, exit_file = record.status, record.run.exit_code(number)
    started = ended = None
    newest = status is not None and status.attempt == number
    if status is not None and newest:
        started, ended = status.attempt_started, status.ended
    if status is not None and number == 1:
        started = status.started or started
    ended = ended or _modified(exit_file)
    if not ended and not newest:
        ended = written.get(number)
    return RunAttempt(number, started, ended, _exit_code(exit_file))


def _last_written(logs: Path) -> dict[int, str]:
    """Attempt -> when one of its logs was last written."""
    times: dict[int, float] = {}
    try:
        with os.scandir(logs) as items:
            for item in items:
                if match := ATTEMPT_FILE.fullmatch(item.name):
                    number, time = int(match[1]), item.stat(follow_symlinks=False).st_mtime
                    times[number] = max(times.get(number, 0.0), time)
    except OSError:  # there is none yet, or it is closed to this user
        return {}
    return {number: _iso(time) for number, time in times.items()}


def _exit_code(path: Path) -> int | None:
    try:
        return int(read_regular_file(path, EXIT_BYTES))
    except (OSError, ValueError):
        return None


def _modified(path: Path) -> str | None:
    try:
        return _iso(path.stat().st_mtime)
    except OSError:
        return None


def _iso(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds")
