"""The logs of a run: one file per attempt and rank, and what the launcher had to say."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hpc.jobs.queue import RunState
from hpc.jobs.run import Run

POLL_S = 0.3
STATE_POLL_S = 2.0


@dataclass(frozen=True)
class Line:
    """One line of one stream. `stream` is `<attempt>:<rank>`, or `launcher`."""

    stream: str
    text: str


def streams(run: Run, rank: int | None = None) -> list[tuple[str, Path]]:
    """Every log of the run as (stream, path): the launcher's first, then attempts, then ranks."""
    ranks = []
    for path in run.logs.glob("*-*.log"):
        attempt, number = path.stem.split("-", 1)
        if attempt.isdigit() and number.isdigit() and rank in (None, int(number)):
            ranks.append((int(attempt), int(number), path))
    launcher = [path for path in (run.logs / "launcher.log",) if path.exists()]
    try:
        # srun's complaints and errors from before a rank had a log of its own.
        launcher += sorted(run.submitit.glob("*_log.err"))
    except PermissionError:
        launcher = launcher[:1]  # submitit's folder is its owner's alone
    named = [("launcher", path) for path in launcher] if rank is None else []
    return named + [(f"{attempt}:{number}", path) for attempt, number, path in sorted(ranks)]


def read(run: Run, rank: int | None = None) -> Iterator[Line]:
    """Every line that is there now."""
    yield from Reader(run, rank).new()


def follow(run: Run, rank: int | None, state: Callable[[], RunState]) -> Iterator[Line]:
    """Every line, those to come too, until the run is over; a requeue is not its end."""
    reader = Reader(run, rank)
    asked = 0.0
    over = False
    while True:
        yield from reader.new(to_the_end=over)
        if over:
            return
        if time.monotonic() - asked > STATE_POLL_S:
            over = state().over
            asked = time.monotonic()
        if not over:
            time.sleep(POLL_S)


class Reader:
    """Remembers how far each stream was read; finds streams that appear later."""

    def __init__(self, run: Run, rank: int | None) -> None:
        self._run = run
        self._rank = rank
        self._offsets: dict[Path, int] = {}

    def new(self, to_the_end: bool = True) -> Iterator[Line]:
        """Lines since the last call; a line without its end waits, unless nothing more comes."""
        for stream, path in streams(self._run, self._rank):
            offset = self._offsets.get(path, 0)
            try:
                with path.open("rb") as file:
                    file.seek(offset)
                    data = file.read()
            except OSError:
                continue  # removed or not ours to read; it may be there next time
            if not to_the_end:
                data = data[: data.rfind(b"\n") + 1]
            self._offsets[path] = offset + len(data)
            for text in data.decode(errors="replace").splitlines():
                yield Line(stream, text)
