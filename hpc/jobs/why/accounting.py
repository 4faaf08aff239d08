"""Ended jobs from sacct: how each step of one ended, and how long requests of a size waited."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

DAYS = 3
"""Age of the oldest job from which waiting times are taken."""
ENOUGH = 3
"""Jobs of one size from which a typical wait is taken; with fewer, all of the partition count."""
ENDS_FORMAT = "JobID,State,ExitCode,DerivedExitCode,NodeList,Start,End,JobName"
WAITS_FORMAT = "JobID,Submit,Eligible,Start,NNodes,ReqTRES"
STEP_ID = re.compile(r"\d{1,20}(?:_\d{1,10})?(?:\.(?:\d{1,10}|batch|extern))?", re.ASCII)
CODE = re.compile(r"(\d{1,10}):(\d{1,10})", re.ASCII)
GPU_COUNT = re.compile(r"\bgres/gpu=(\d{1,6})\b", re.ASCII)


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


@dataclass(frozen=True)
class WaitHistory:
    """Waiting times of jobs of a partition that started in the last DAYS days."""

    jobs: int
    same_size: bool
    """True for jobs with as many nodes and GPUs alone."""
    median_s: int
    longest_s: int


@dataclass(frozen=True)
class _Waited:
    nodes: int
    gpus: int
    seconds: int


def parse_ends(text: str) -> list[JobEnd]:
    """Lines of ENDS_FORMAT, the name last: it may hold anything. Odd lines are left out."""
    return [end for line in text.split("\n") if (end := _end(line))]


def wait_history(text: str, nodes: int, gpus: int) -> WaitHistory | None:
    """Waiting times in lines of WAITS_FORMAT, of jobs with so many `nodes` and `gpus` in all.

    None without a job that started. Odd lines are left out.
    """
    all_waits = list(_waits(text))
    alike = [one for one in all_waits if (one.nodes, one.gpus) == (nodes, gpus)]
    chosen = alike if len(alike) >= ENOUGH else all_waits
    if not chosen:
        return None
    seconds = [one.seconds for one in chosen]
    return WaitHistory(len(chosen), chosen is alike, round(median(seconds)), max(seconds))


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


def _end(line: str) -> JobEnd | None:
    fields = line.split("|", 7)
    if len(fields) < 8 or not STEP_ID.fullmatch(fields[0]) or not fields[1].strip():
        return None
    state = fields[1].split()
    code, number = _codes(fields[2])
    derived = _codes(fields[3])[0]
    ended = fields[6] if _time(fields[6]) else ""
    by = state[2] if state[1:2] == ["by"] and len(state) > 2 else ""
    return JobEnd(fields[0], state[0].rstrip("+"), code, number, derived, fields[4], ended, by)


def _codes(text: str) -> tuple[int, int]:
    found = CODE.fullmatch(text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _waits(text: str) -> Iterator[_Waited]:
    for line in text.split("\n"):
        fields = line.split("|")
        if len(fields) != 6 or not fields[4].isdecimal():
            continue
        begin, start = _time(fields[2]) or _time(fields[1]), _time(fields[3])
        if begin is None or start is None or start < begin:
            continue
        gpus = GPU_COUNT.search(fields[5])
        yield _Waited(int(fields[4]), int(gpus[1]) if gpus else 0, round(start - begin))


def _time(text: str) -> float | None:
    """Seconds of a time of sacct; None for `Unknown` and `None`."""
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S").timestamp()
    except (ValueError, OverflowError):
        return None
