"""Ended jobs from sacct: how each step of one ended."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

ENDS_FORMAT = "JobID,State,ExitCode,DerivedExitCode,NodeList,Start,End,JobName"
STEP_ID = re.compile(r"\d{1,20}(?:_\d{1,10})?(?:\.(?:\d{1,10}|batch|extern))?", re.ASCII)
CODE = re.compile(r"(\d{1,10}):(\d{1,10})", re.ASCII)


@dataclass(frozen=True)
class JobEnd:
    """The end of a job (`12`) or of one of its steps (`12.batch`, `12.0`) in sacct."""

    step: str
    state: str
    """Slurm's long word, such as NODE_FAIL."""
    exit_code: int
    signal: int
    derived_code: int
    """The highest exit code of all steps."""
    nodes: str
    ended: str
    """Local time; empty where it has not ended."""
    by: str = ""
    """User id that cancelled it."""


def parse_ends(text: str) -> list[JobEnd]:
    """Lines of ENDS_FORMAT, the name last: it may hold anything. Odd lines are left out."""
    return [end for line in text.split("\n") if (end := _end(line))]


def signal_name(number: int) -> str:
    """SIGKILL for 9; `signal 99` for a number without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def worst_step(ends: Sequence[JobEnd]) -> JobEnd | None:
    """The srun step of the newest record that ended with a signal or code; None without one."""
    bad = [
        end
        for end in ends
        if re.fullmatch(r"[\d_]+\.\d+", end.step) and (end.signal or end.exit_code)
    ]  # fmt: skip
    return bad[-1] if bad else None


def sacct_time(text: str) -> float | None:
    """Seconds of a time of sacct; None for `Unknown` and `None`."""
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S").timestamp()
    except (ValueError, OverflowError):
        return None


def _end(line: str) -> JobEnd | None:
    fields = line.split("|", 7)
    if len(fields) < 8 or not STEP_ID.fullmatch(fields[0]) or not fields[1].strip():
        return None
    state = fields[1].split()
    code, number = _codes(fields[2])
    derived = _codes(fields[3])[0]
    ended = fields[6] if sacct_time(fields[6]) else ""
    by = state[2] if state[1:2] == ["by"] and len(state) > 2 else ""
    return JobEnd(fields[0], state[0].rstrip("+"), code, number, derived, fields[4], ended, by)


def _codes(text: str) -> tuple[int, int]:
    found = CODE.fullmatch(text)
    return (int(found[1]), int(found[2])) if found else (0, 0)
