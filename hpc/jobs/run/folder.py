"""The folder of one run, and finding it by its name or a part of it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

from hpc.jobs.errors import UnknownRun
from hpc.jobs.spec.job_spec import JobSpec, read_spec


@dataclass(frozen=True)
class Run:
    """Everything about one training effort is in `folder`, whose name is the run's name."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def spec_path(self) -> Path:
        """The `JobSpec` frozen at submit, 0444."""
        return self.folder / "spec.yaml"

    @property
    def submitit(self) -> Path:
        """submitit's own files, 0700: the script, and a pickle that names our entry point."""
        return self.folder / "submitit"

    @property
    def logs(self) -> Path:
        """`<attempt>-<rank>.log` of each rank."""
        return self.folder / "log"

    @property
    def job(self) -> Path:
        """`JobFile` of the submitter."""
        return self.folder / "job.json"

    @property
    def status(self) -> Path:
        """`StatusFile` of rank 0."""
        return self.folder / "status.json"

    @property
    def failure(self) -> Path:
        """`FailureFile` of the rank that failed first, and then of the attempt."""
        return self.folder / "failure.json"

    @property
    def cancelled(self) -> Path:
        """`CancelFile` of `lockgate cancel`."""
        return self.folder / "cancelled.json"

    @property
    def trial(self) -> Path:
        """`TrialFile` of a run that is part of a sweep."""
        return self.folder / "trial.json"

    def exit_code(self, attempt: int) -> Path:
        """Exit code of the attempt: of the first rank that ended with one, and then of the job."""
        return self.logs / f"{attempt}.exit"

    def attempt_end(self, attempt: int) -> Path:
        """`AttemptEndFile` of an attempt that is over."""
        return self.logs / f"{attempt}.end.json"

    def hang(self, attempt: int) -> Path:
        """A sentence of the first rank that made no step for too long."""
        return self.logs / f"{attempt}.hang"

    @property
    def nodes(self) -> Path:
        """`<attempt>-<node>.json` of each node's checks; see hpc.nodes."""
        return self.folder / "nodes"

    @property
    def excluded_nodes(self) -> Path:
        """Nodes that the next attempt is started without, as sbatch --exclude takes them."""
        return self.nodes / "exclude"

    @property
    def checkpoints(self) -> Path:
        """A folder of each checkpoint, by its step, and the files about them."""
        return self.folder / "checkpoints"

    @property
    def operators(self) -> Path:
        """`OperatorsFile` of each rank, by its number; see hpc.jobs.run.operators."""
        return self.folder / "operators"

    @property
    def metrics(self) -> Path:
        """One JSON object per logged step."""
        return self.folder / "metrics.jsonl"

    @property
    def target(self) -> Path:
        """`TargetFile` of rank 0, while it serves Prometheus metrics."""
        return self.folder / "metrics_target.json"

    @cached_property
    def spec(self) -> JobSpec:
        """The spec, read once. Raises `SpecChanged` when it is not as it was frozen."""
        return read_spec(self.spec_path)


def run_name(spec: JobSpec, now: datetime) -> str:
    """`<task>-<UTC time>-<digest>`: sorts by time, and holds the task's name."""
    return f"{spec.task}-{now.astimezone(UTC):%Y%m%d-%H%M%S}-{spec.digest[:6]}"


def sweep_folder(runs: Path, name: str) -> Path:
    """Everything about the sweep `name` that is not in its trials' own folders."""
    return runs / "sweeps" / name


RUN_NAME = re.compile(r".+-[0-9]{8}-[0-9]{6}-[0-9a-f]{6}", re.DOTALL)


def all_runs(runs: Path) -> list[Run]:
    """Every run of a site, oldest first; snapshots and staging folders are none.

    A folder is a run where it has a spec, of whatever kind and readable or not, or where this user
    may not enter it and its name is a run's: a broken run is shown, not left out.
    """
    if not runs.is_dir():
        return []
    with os.scandir(runs) as items:
        found = [Run(runs / item.name) for item in items if _is_run(item)]
    return sorted(found, key=lambda run: (_stamp(run.name), run.name))


def find_run(runs: Path, word: str) -> Run:
    """The run called `word`, or the only one that starts or ends so; `last` is the newest.

    Raises `UnknownRun`, naming the nearest.
    """
    return find_runs(runs, [word])[0]


def find_runs(runs: Path, words: Sequence[str]) -> list[Run]:
    """The run of each word, as `find_run` finds it; the folder is listed once."""
    known = all_runs(runs)
    return [_match(runs, known, word) for word in words]


def _match(runs: Path, known: Sequence[Run], word: str) -> Run:
    if word == "last" and known:
        return known[-1]
    names = [run.name for run in known]
    for match in (
        [run for run in known if run.name == word],
        [run for run in known if word and (run.name.startswith(word) or run.name.endswith(word))],
    ):
        if len(match) == 1:
            return match[0]
        if match:
            several = ", ".join(run.name for run in match[-4:])
            raise UnknownRun(f"{word!r} names {len(match)} runs, among them {several}")
    if not names:
        raise UnknownRun(f"there is no run {word!r}: no run was submitted yet (in {runs})")
    near = get_close_matches(word, names, n=3, cutoff=0.4) or names[-3:]
    raise UnknownRun(f"there is no run {word!r}. Nearest: {', '.join(near)}")


def _is_run(item: os.DirEntry[str]) -> bool:
    try:
        if not item.is_dir():
            return False
        os.lstat(Path(item.path, "spec.yaml"))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # closed to this user
        return RUN_NAME.fullmatch(item.name) is not None
    return True


def _stamp(name: str) -> str:
    """The part of a run's name that sorts by time."""
    parts = name.rsplit("-", 3)
    return "-".join(parts[1:3]) if len(parts) == 4 else ""
