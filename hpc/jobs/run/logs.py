"""The logs of a run: one file per attempt and rank, and the launcher's own output."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hpc.jobs.run.folder import Run
from hpc.jobs.run.states import RunState

POLL_S = 0.3
STATE_POLL_S = 2.0


@dataclass(frozen=True)
class LogLine:
    """One line of one stream. `stream` is `<attempt>:<rank>`, or `launcher`."""

    stream: str
    text: str


def log_streams(run: Run, rank: int | None = None) -> list[tuple[str, Path]]:
    """Every log of the run as (stream, path): the launcher's first, then attempts, then ranks."""
    ranks = []
    for path in run.logs.glob("*-*.log"):
        attempt, number = path.stem.split("-", 1)
        if attempt.isdecimal() and number.isdecimal() and rank in (None, int(number)):
            ranks.append((int(attempt), int(number), path))
    launcher = [path for path in (run.logs / "launcher.log",) if path.exists()]
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
            offset = self._offsets.get(path, 0)
            try:
                with path.open("rb") as file:
                    file.seek(offset)
                    data = file.read()
            except OSError:
                continue  # removed or not ours to read; it may be there next time
            if not partial:
                data = data[: data.rfind(b"\n") + 1]
            self._offsets[path] = offset + len(data)
            for text in data.decode(errors="replace").splitlines():
                yield LogLine(stream, text)
