"""A run's states over time, as far as its folder has them: submitted, attempts, its end.

Times are of the run's own files, and else of when a file was last written: an attempt that was
neither the first nor the newest left no start. Nothing is guessed; what no file has is None, and
so are the times of files in a copied folder, which are those of the copy.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hpc.jobs.regular_file import open_regular_file, read_regular_file
from hpc.jobs.run.files import CancelFile, RunRecord, read_run_file
from hpc.jobs.run.metric_lines import LATEST
from serving.artifact.candidate import FILE as CANDIDATE_FILE

ATTEMPT_FILE = re.compile(r"([0-9]{1,6})(?:-[0-9]{1,6}\.log|\.exit)", re.ASCII)
"""`<attempt>-<rank>.log` and `<attempt>.exit`."""
EXIT_BYTES = 16
HEAD_BYTES = 1 << 16
"""Beginning of a log in which an attempt names the step that it goes on from."""
RESUMED = re.compile(rb"^resumed after step ([0-9]{1,15})$", re.MULTILINE)
MOST_ATTEMPTS = 200
"""Attempts of one run, the newest; earlier ones are left out."""
CLOCK_S = 60.0
"""A file's time counts only this near to the run's own times: a copied folder has others."""


@dataclass(frozen=True)
class RunAttempt:
    """One start of a run's job; times are ISO."""

    number: int
    started: str | None
    ended: str | None
    exit_code: int | None
    """Of the first rank that ended with one; None for an attempt that goes on or finished."""
    resumed_step: int = 0
    """Steps behind it when it began; 0 for a start from the beginning."""


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
        first = next((one.started for one in self.attempts if one.number == 1), None)
        return seconds_between(self.submitted, first)


def read_timeline(record: RunRecord) -> RunTimeline:
    """The time line of a run; raises nothing for what stands in its folder."""
    run, status = record.run, record.status
    submitted = (record.job.submitted or None) if record.job else None
    files = _FileTimes(moment(submitted), moment(status.ended if status else None))
    written = files.attempts(run.logs)
    numbers = sorted({*written, *([status.attempt] if status else [])})[-MOST_ATTEMPTS:]
    cancel = read_run_file(CancelFile, run.cancelled).value
    return RunTimeline(
        submitted=submitted,
        attempts=tuple(_attempt(record, number, files, written) for number in numbers),
        cancelled=cancel.at if cancel else None,
        candidate=files.modified(run.folder / "candidate" / CANDIDATE_FILE),
    )


def seconds_between(start: str | None, end: str | None) -> float | None:
    """Seconds from one ISO time to another; None where one is missing, or no time with a zone."""
    first, last = moment(start), moment(end)
    return None if first is None or last is None else last - first


def moment(text: str | None) -> float | None:
    """Seconds since 1970 of an ISO time with a zone; None for anything else."""
    try:
        found = datetime.fromisoformat(text or "")
        at = found.timestamp() if found.tzinfo else 0.0
    except (ValueError, OverflowError):
        return None
    return at if 0 < at < LATEST else None


@dataclass(frozen=True)
class _FileTimes:
    """When files were last written, as far as that can be of a run of these two moments."""

    submitted: float | None
    ended: float | None

    def modified(self, path: Path) -> str | None:
        """ISO time; None where there is no such file, or its time is that of a copy."""
        try:
            return self._iso(path.stat().st_mtime)
        except OSError:
            return None

    def attempts(self, logs: Path) -> dict[int, str | None]:
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
        return {number: self._iso(time) for number, time in times.items()}

    def _iso(self, time: float) -> str | None:
        least = self.submitted if self.submitted is not None else time
        most = self.ended if self.ended is not None else time
        if not least - CLOCK_S <= time <= most + CLOCK_S:
            return None
        return datetime.fromtimestamp(time, UTC).isoformat()


def _attempt(
    record: RunRecord, number: int, files: _FileTimes, written: dict[int, str | None]
) -> RunAttempt:
    status, exit_file = record.status, record.run.exit_code(number)
    started = ended = None
    newest = status is not None and status.attempt == number
    if status is not None and newest:
        started, ended = status.attempt_started, status.ended
    if status is not None and number == 1:
        started = status.started or started
    ended = ended or files.modified(exit_file)
    if not ended and not newest:
        ended = written.get(number)
    resumed = _resumed_step(record.run.logs / f"{number}-0.log")
    return RunAttempt(number, started, ended, _exit_code(exit_file), resumed)


def _resumed_step(log: Path) -> int:
    """The step after which the attempt of this log went on; 0 where its head names none."""
    try:
        with open_regular_file(log) as file:
            match = RESUMED.search(file.read(HEAD_BYTES))
    except OSError:
        return 0
    return int(match[1]) if match else 0


def _exit_code(path: Path) -> int | None:
    try:
        return int(read_regular_file(path, EXIT_BYTES))
    except (OSError, ValueError):
        return None
