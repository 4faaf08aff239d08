"""The logs of a run: one file per attempt and rank, and the launcher's own output."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from hpc.jobs.regular_file import open_regular_file
from hpc.jobs.run.folder import Run
from hpc.jobs.run.states import RunState

POLL_S = 0.3
STATE_POLL_S = 2.0
LONGEST_BYTES = 1 << 20
"""Length of a line in memory."""


@dataclass(frozen=True)
class LogLine:
    """One line of one stream. `stream` is `<attempt>:<rank>`, or `launcher`.

    A line feed alone ends a line: a carriage return and U+2028 are letters of its `text`.
    """

    stream: str
    text: str


def log_streams(run: Run, rank: int | None = None) -> list[tuple[str, Path]]:
    """Every log of the run as (stream, path): the launcher's first, then attempts, then ranks."""
    ranks = []
    for path in run.logs.glob("*-*.log"):
        attempt, number = path.stem.split("-", 1)
        if attempt.isdecimal() and number.isdecimal() and rank in (None, int(number)):
            ranks.append((int(attempt), int(number), path))
    # os.path.exists is false in a folder that this user may not enter; Path.exists raises.
    launcher = [path for path in (run.logs / "launcher.log",) if os.path.exists(path)]  # noqa: PTH110
    try:
        # srun's complaints and errors from before a rank had a log of its own.
        launcher += sorted(run.submitit.glob("*_log.err"))
    except PermissionError:
        launcher = launcher[:1]  # submitit's folder is its owner's alone
    named = [("launcher", path) for path in launcher] if rank is None else []
    return named + [(f"{attempt}:{number}", path) for attempt, number, path in sorted(ranks)]


def read_lines(run: Run, rank: int | None = None) -> Iterator[LogLine]:
    """Every line that is there now."""
    yield from LogReader(run, rank).read_new()


def follow_lines(run: Run, rank: int | None, state: Callable[[], RunState]) -> Iterator[LogLine]:
    """Every line, those to come too, until the run is over; a requeue is not its end."""
    reader = LogReader(run, rank)
    polled = 0.0
    over = False
    while True:
        yield from reader.read_new(partial=over)
        if over:
            return
        if time.monotonic() - polled > STATE_POLL_S:
            over = state().over
            polled = time.monotonic()
        if not over:
            time.sleep(POLL_S)


class LogReader:
    """The offset read so far in each stream of a run; finds streams that appear later."""

    def __init__(self, run: Run, rank: int | None) -> None:
        self._run = run
        self._rank = rank
        self._offsets: dict[Path, int] = {}

    def read_new(self, partial: bool = True) -> Iterator[LogLine]:
        """Lines since the last call; a last line without its end only where `partial`."""
        for stream, path in log_streams(self._run, self._rank):
            try:
                file = open_regular_file(path)
            except OSError:
                continue  # removed or not ours to read; it may be there next time
            with file:
                for line in self._new_lines(path, file, partial):
                    yield LogLine(stream, line.decode(errors="replace"))

    def _new_lines(self, path: Path, file: BinaryIO, partial: bool) -> Iterator[bytes]:
        """Whole lines without their ends; one of more than `LONGEST_BYTES` comes in pieces."""
        offset = self._offsets.get(path, 0)
        file.seek(offset)
        while line := file.readline(LONGEST_BYTES):
            whole = line.endswith(b"\n") or len(line) == LONGEST_BYTES
            if not whole and not partial:
                return
            offset += len(line)
            self._offsets[path] = offset
            yield line.removesuffix(b"\n")
