"""Broken runs: those with a file that is there and cannot be used, each with the reason.

A run is looked at again only when one of its files has changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc.jobs.errors import SpecChanged
from hpc.jobs.run.files import TargetFile, read_record, read_run_file
from hpc.jobs.run.folder import Run

RUNS_AT_ONCE = 50
"""Runs that one call reads anew: a spec takes some milliseconds, and a site has thousands."""

Stamp = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class RunFaults:
    """The faults of one run as of `stamp`, the states of its files."""

    stamp: Stamp
    reasons: tuple[str, ...]
    """A sentence each; none for a run in order."""


def check_runs(runs: Sequence[Run], before: Mapping[str, RunFaults]) -> dict[str, RunFaults]:
    """The faults of `runs` by name, most of them as they were found `before`.

    At most `RUNS_AT_ONCE` are read, the newest first; the next call goes on with the others.
    """
    checked: dict[str, RunFaults] = {}
    left = RUNS_AT_ONCE
    for run in reversed(runs):
        stamp, known = _stamp(run), before.get(run.name)
        if known is not None and known.stamp == stamp:
            checked[run.name] = known
        elif left:
            checked[run.name] = RunFaults(stamp, run_faults(run))
            left -= 1
    return checked


def run_faults(run: Run) -> tuple[str, ...]:
    """A sentence for each file of the run that is there and cannot be used; raises nothing."""
    reasons = list(read_record(run).problems)
    target = read_run_file(TargetFile, run.target).problem
    try:
        _ = run.spec
    except SpecChanged as error:
        reasons.append(str(error))
    return (*reasons, *([target] if target else []))


def _stamp(run: Run) -> Stamp:
    paths = (run.spec_path, run.job, run.status, run.failure, run.cancelled, run.target)
    return tuple(map(_state, paths))


def _state(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError as error:
        return (error.errno or 0,)
    return (found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode, found.st_uid)
