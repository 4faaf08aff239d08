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
REMEMBERED_BYTES = 64
"""Before the place that was read to: others there are another file's."""


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


def follow_lines(
    run: Run,
    rank: int | None,
    state: Callable[[], RunState],
    on_state: Callable[[RunState], None] = lambda _: None,
) -> Iterator[LogLine]:
    """Every line, those to come too, until the run is over; a requeue is not its end.

    `state` is polled gently, and `on_state` has each answer but the last, of a run that is over.
    """
    reader = LogReader(run, rank)
    polled = 0.0
    over = False
    while True:
        yield from reader.read_new(partial=over)
        if over:
            return
        if time.monotonic() - polled > STATE_POLL_S:
            found = state()
            over = found.over
            polled = time.monotonic()
            if not over:
                on_state(found)
        if not over:
            time.sleep(POLL_S)


@dataclass
class _Place:
    """The end of what was read of one file: which file, how far, and the bytes before that."""

    file_id: tuple[int, int]
    offset: int = 0
    before: bytes = b""

    def is_in(self, file: BinaryIO) -> bool:
        """True unless the file was replaced, or emptied and written again."""
        if self.file_id != _file_id(file):
            return False
        file.seek(self.offset - len(self.before))
        return file.read(len(self.before)) == self.before


class LogReader:
    """The place read so far in each stream of a run; finds streams that appear later.

    A log that was truncated is read from its beginning; of one that was rotated, what was still to
    be read is read first, wherever in the folder it is now.
    """

    def __init__(self, run: Run, rank: int | None) -> None:
        self._run = run
        self._rank = rank
        self._places: dict[Path, _Place] = {}

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
        place = self._places.get(path)
        if place is not None and not place.is_in(file):
            if rotated := _rotated(path, place):
                with rotated:
                    yield from _lines(rotated, place, partial=True)
            place = None
        if place is None:
            place = self._places[path] = _Place(_file_id(file))
        yield from _lines(file, place, partial)


def _lines(file: BinaryIO, place: _Place, partial: bool) -> Iterator[bytes]:
    """Whole lines without their ends; one of more than `LONGEST_BYTES` comes in pieces."""
    file.seek(place.offset)
    while line := file.readline(LONGEST_BYTES):
        whole = line.endswith(b"\n") or len(line) == LONGEST_BYTES
        if not whole and not partial:
            return
        place.offset += len(line)
        place.before = (place.before + line)[-REMEMBERED_BYTES:]
        yield line.removesuffix(b"\n")


def _rotated(path: Path, place: _Place) -> BinaryIO | None:
    """The file of `place` under its new name beside `path`; None where it is gone."""
    try:
        with os.scandir(path.parent) as items:
            names = [item.path for item in items if item.inode() == place.file_id[1]]
        file = open_regular_file(Path(names[0])) if names else None
    except OSError:
        return None
    if file is None or place.is_in(file):
        return file
    file.close()
    return None


def _file_id(file: BinaryIO) -> tuple[int, int]:
    found = os.fstat(file.fileno())
    return found.st_dev, found.st_ino
