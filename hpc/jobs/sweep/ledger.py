"""The ledger of a sweep: one line of JSON per thing that happened to a trial, only ever appended.

It names the run of each trial and no run's state: that is read from the run and from Slurm.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from conf.schema import SchemaError, build
from hpc.jobs.errors import UsageError
from hpc.jobs.regular_file import read_regular_file
from hpc.jobs.run.folder import sweep_folder
from serving.artifact.durable import append_line

LIMIT_BYTES = 1 << 26
"""Size of a ledger; what is beyond it is not read."""


@dataclass(frozen=True)
class LedgerLine:
    """One line. `settings`, `base`, `spec`, `source` and `dataset` are digests."""

    event: Literal["planned", "sending", "submitted", "not sent"]
    at: str
    """ISO time."""
    user: str
    settings: str
    """Of the config, of cluster and site only what is swept: what makes a trial that trial."""
    base: str
    """Of the same without the swept keys; empty where the sweep runs over tasks."""
    spec: str
    source: str
    dataset: str
    values: dict[str, Any] = field(default_factory=dict)
    """The swept settings by dotted key."""
    run: str = ""
    """Empty before the trial was sent for the first time."""
    job_id: str = ""

    def __post_init__(self) -> None:  # it becomes a part of a path
        if self.run and (Path(self.run).name != self.run or self.run == ".."):
            raise ValueError("run: must be the name of a run")


def ledger_path(runs: Path, sweep: str) -> Path:
    """The ledger of `sweep`, which need not be there yet."""
    return sweep_folder(runs, sweep) / "ledger.jsonl"


def sweep_names(runs: Path) -> list[str]:
    """Every sweep that has a ledger, sorted."""
    return sorted(path.parent.name for path in (runs / "sweeps").glob("*/ledger.jsonl"))


def read_ledger(path: Path) -> list[LedgerLine]:
    """The lines in their order; none where there is no ledger. A line of another form is left out.

    Raises `OSError` for a file that is there and cannot be read.
    """
    try:
        text = read_regular_file(path, LIMIT_BYTES)
    except FileNotFoundError:
        return []
    return [line for part in text.split(b"\n") if part and (line := _line(part))]


def newest_lines(lines: Sequence[LedgerLine]) -> dict[str, LedgerLine]:
    """The last line of each trial by its settings, in the order in which they were first named.

    A trial that was sent before keeps that run's name when it is planned again.
    """
    newest: dict[str, LedgerLine] = {}
    for line in lines:
        if line.event == "planned" and line.settings in newest:
            continue
        newest[line.settings] = line
    return newest


def append_lines(path: Path, lines: Sequence[LedgerLine]) -> None:
    """Append the lines with one write, durable on return."""
    if lines:
        append_line(path, "\n".join(json.dumps(asdict(line), sort_keys=True) for line in lines))


@contextmanager
def one_writer(path: Path) -> Iterator[None]:
    """The only command that writes this ledger, while the block runs.

    Raises `UsageError` where another one writes it now, or it is another user's.
    """
    name = path.parent.name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except PermissionError as error:
        raise UsageError(
            f"the sweep {name} is not yours to write ({path.parent}). Name another one: sweep=NAME"
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise UsageError(
            f"another command is sending the sweep {name} now; type the line again when it is done"
        ) from error
    finally:
        os.close(handle)


def _line(part: bytes) -> LedgerLine | None:
    try:
        content = json.loads(part)
        known: Mapping[str, Any] = content if isinstance(content, dict) else {}
        return build(LedgerLine, known, "ledger")  # type: ignore[no-any-return]
    except (SchemaError, ValueError, RecursionError):
        return None
