"""All that a run's own files have about its state, read at one time, and remembered by their stats.

To read the files of one run takes milliseconds, most of them for its spec; a list of thousands
takes the ended ones from a file of the user's own, as long as no file of theirs was touched since.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

from omegaconf import OmegaConf

from hpc.jobs.errors import SpecChanged
from hpc.jobs.regular_file import read_regular_file
from hpc.jobs.run.files import RunRecord, read_record
from hpc.jobs.run.folder import Run
from hpc.jobs.run.metrics import last_metrics
from serving.artifact.durable import replace_file

FEW = 50
"""As many runs or fewer are read each time."""
CACHE_BYTES = 256 << 20
RACE_S = 2.0
"""Files that were written so shortly before are not remembered: a next write may leave one stat."""
FILES = ("", "spec.yaml", "job.json", "status.json", "failure.json", "cancelled.json",
         "trial.json", "metrics.jsonl")  # fmt: skip
"""Those that are read; the folder itself, whose stat a new file changes, is the first."""
Stats = list[list[int] | None]


@dataclass(frozen=True)
class RunReading:
    """A run's record, and of its spec and metrics what a list of runs shows."""

    record: RunRecord
    task: str
    steps: int
    """Of the whole run; 0 where no spec says so."""
    step: int
    """Last step logged."""
    loss: float | None
    problems: tuple[str, ...]
    """A sentence per file that is there and could not be used."""
    origin: str = ""
    """The checkpoint of another run that it began with, in words."""


def read_run(run: Run) -> RunReading:
    """Read the files of one run; raises nothing for what stands in them."""
    record = read_record(run)
    metrics = last_metrics(run.metrics)
    task, steps, problems, origin = "?", 0, list(record.problems), ""
    try:
        task, origin = run.spec.task, run.spec.origin
        steps = _whole(OmegaConf.select(run.spec.config, "steps"))
    except SpecChanged as error:
        problems.append(str(error))
    loss = metrics.get("loss")
    return RunReading(
        record, task, steps, _whole(metrics.get("step")), _number(loss), tuple(problems), origin
    )


def read_runs(runs: Sequence[Run]) -> list[RunReading]:
    """The readings of the runs of one site, in their order."""
    if len(runs) <= FEW:
        return [read_run(run) for run in runs]
    path = _cache_path(runs[0].folder.parent)
    known = _remembered(path) if path else {}
    found: list[RunReading] = []
    fresh: dict[str, Any] = {}
    for run in runs:
        stats = _stats(run)
        reading = _recalled(run, stats, known.get(run.name))
        if reading is None:
            reading = read_run(run)
            if _is_lasting(reading, stats):
                fresh[run.name] = [stats, _plain(reading)]
        found.append(reading)
    if path and fresh:
        _remember(path, runs[0].folder.parent, known | fresh)
    return found


def _recalled(run: Run, stats: Stats, entry: Any) -> RunReading | None:
    """The remembered reading; None where a file was touched since, or the entry is none of ours."""
    try:
        if entry is None or entry[0] != stats:
            return None
        plain = entry[1]
        record = _made(RunRecord, {**plain["record"], "run": run, "problems": ()})
        return RunReading(**{**plain, "record": record, "problems": ()})
    except (TypeError, KeyError, IndexError, ValueError):
        return None


def _plain(reading: RunReading) -> dict[str, Any]:
    record = {
        one.name: getattr(reading.record, one.name)
        for one in fields(RunRecord)
        if one.name not in ("run", "problems")
    }
    record = {name: _content(one) for name, one in record.items()}
    others = {name: getattr(reading, name) for name in ("task", "steps", "step", "loss", "origin")}
    return {"record": record, **others}


def _content(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _made(kind: Any, plain: dict[str, Any]) -> Any:
    """The dataclass `kind` of plain values, its own checks included."""
    parts = _parts(kind)
    return kind(**{
        name: _made(parts[name], value) if name in parts and isinstance(value, dict) else value
        for name, value in plain.items()
    })  # fmt: skip


@cache
def _parts(kind: Any) -> dict[str, Any]:
    """The fields of a dataclass that are dataclasses, with their kinds."""
    return {
        name: part
        for name, hint in get_type_hints(kind).items()
        for part in (hint, *get_args(hint))
        if is_dataclass(part) and part is not Run
    }


def _is_lasting(reading: RunReading, stats: Stats) -> bool:
    """True for a run that is whole and has ended, and whose files have rested for a while."""
    record = reading.record
    ended = record.cancelled or (record.status is not None and record.status.ended is not None)
    newest_ns = max((one[0] for one in stats if one), default=0)
    rested = time.time_ns() - newest_ns > RACE_S * 1e9
    return record.job is not None and ended and rested and not reading.problems


def _stats(run: Run) -> Stats:
    """Times, sizes and numbers of the run's files; None for one that is not there."""
    folder = str(run.folder)
    found: Stats = []
    for name in FILES:
        try:
            one = os.stat(f"{folder}/{name}")  # noqa: PTH116  a Path for each would take longer
        except OSError:
            found.append(None)
            continue
        found.append([one.st_mtime_ns, one.st_size, one.st_ino])
    return found


def _cache_path(runs: Path) -> Path | None:
    """The file of this user for the runs of one folder; None for a user without a home."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = Path(base) if base else Path.home() / ".cache"
    except RuntimeError:
        return None
    return folder / "lockgate" / f"runs-{_sha(str(runs))}.json"


@cache
def _format() -> str:
    """The shape of what is remembered: another version's is forgotten."""
    kinds, seen = [RunReading], []
    while kinds:
        kind = kinds.pop()
        seen.append((kind.__name__, [one.name for one in fields(kind)]))
        kinds += _parts(kind).values()
    return _sha(repr(seen))


def _remembered(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_uid != os.geteuid():
            return {}
        content = json.loads(read_regular_file(path, CACHE_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    ours = isinstance(content, dict) and content.get("format") == _format()
    runs = content.get("runs") if ours else None
    return runs if isinstance(runs, dict) else {}


def _remember(path: Path, runs: Path, entries: dict[str, Any]) -> None:
    """Write the entries of runs that are there still; without a word where it cannot be done."""
    with suppress(OSError, ValueError):
        present = set(os.listdir(runs))  # noqa: PTH208  names alone
        kept = {name: entry for name, entry in entries.items() if name in present}
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = json.dumps({"format": _format(), "runs": kept}, separators=(",", ":"))
        replace_file(path, text, mode=0o600, durable=False)


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def _number(value: object) -> float | None:
    """`value` as a number, None for anything that is none."""
    try:
        return float(value) if isinstance(value, int | float) else None
    except OverflowError:  # JSON's integers have no end
        return None


def _whole(value: object) -> int:
    """`value` as a count, 0 for anything that is none."""
    number = _number(value)
    return int(number) if number is not None and math.isfinite(number) else 0
