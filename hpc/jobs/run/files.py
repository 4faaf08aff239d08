"""The small JSON files of a run folder: one frozen dataclass per file, read strictly.

Another user's job wrote them, at another commit perhaps. A file that is missing, torn or of another
shape reads as None, with the reason kept; keys that this version does not have are left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from omegaconf import OmegaConf

from conf import ConfigError
from conf.names import shown
from conf.schema import TARGET, SchemaError, build
from conf.user import user_name
from hpc.jobs.errors import SpecChanged
from hpc.jobs.regular_file import read_regular_file
from hpc.jobs.run.folder import Run
from serving.artifact.durable import replace_file

T = TypeVar("T")
LIMIT_BYTES = 1 << 20
"""Size of a run's JSON file; a larger one is broken."""
JOB_ID = re.compile(r"[0-9]{1,20}(_[0-9]{1,10})?", re.ASCII)
JOB_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
USER = re.compile(r"[^\s,=|-][^\s,=|]*")
TARGET_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]{1,253}):[0-9]{1,5}", re.ASCII)


@dataclass(frozen=True)
class JobFile:
    """job.json, written by the submitter: the scheduler's job of a run."""

    kind: str
    """The backend, as in `cluster.kind`."""
    job_id: str
    """Slurm's job id, 12_3 for task 3 of array 12, or the pid of the local executor's parent."""
    submitted: str
    """ISO time."""
    user: str
    """Owner of the job."""
    ranks: int
    """World size."""
    slurm_conf: str | None = None
    """SLURM_CONF of the submit; None for the system's own, and for a local run."""
    process_started: int | None = None
    """Start of the local parent in clock ticks since boot: pids are used again."""

    def __post_init__(self) -> None:  # both become arguments of Slurm's commands
        if not JOB_ID.fullmatch(self.job_id):
            raise ValueError(f"job_id={shown(self.job_id)}: must be a number")
        if not USER.fullmatch(self.user):
            raise ValueError(f"user={shown(self.user)}: must be the name of one user")


@dataclass(frozen=True)
class RankFailure:
    """An error of one rank, for people."""

    type: str
    message: str
    """Its first lines."""
    rank: int | None
    """None for an error that is no single rank's."""

    @property
    def line(self) -> str:
        """`Type: first line (rank N)`, the line alone where it is no single rank's."""
        first = self.message.partition("\n")[0]
        return first if self.rank is None else f"{self.type}: {first} (rank {self.rank})"


UNFIT_NODE = "UnfitNode"
"""Type of the failure of a rank whose node failed the checks before training."""


@dataclass(frozen=True)
class StatusFile:
    """status.json, written by rank 0 and at an attempt's end: the newest attempt. Times are ISO."""

    state: Literal["running", "ending", "finished", "requeued", "stopped", "failed"]
    """`ending` only with a failure laid over it, see `with_failure`."""
    attempt: int
    """Counts from 1."""
    run: str = ""
    job_id: str = ""
    ranks: int = 0
    """World size."""
    node: str = ""
    started: str | None = None
    """Start of the first attempt."""
    attempt_started: str | None = None
    ended: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    """Final metrics, once the attempt ended."""
    error: RankFailure | None = None
    """Why the attempt ended, if it did not end well."""
    began_after: int = 0
    """Step of the newest checkpoint when the attempt began."""
    stalled: int = 0
    """Attempts in a row that ended without a newer checkpoint than they began from."""


@dataclass(frozen=True)
class FailureFile:
    """failure.json, of the rank that failed first, and then of the whole attempt at its end."""

    attempt: int
    ended: str
    """ISO time."""
    error: RankFailure
    run: str = ""
    job_id: str = ""
    state: Literal["failed", "ending", "requeued"] = "failed"
    """`ending`: a rank lost another one, or made no step; the end of the attempt decides."""
    metrics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AttemptEndFile:
    """log/<attempt>.end.json, written when an attempt is over: its cause, and what follows."""

    attempt: int
    outcome: Literal["finished", "requeued", "stopped", "failed"]
    kind: str
    """Of the cause, as in killed; see `hpc.jobs.cause.first_cause`. Empty for an orderly end."""
    sentence: str
    """The first cause, for people."""
    ended: str
    """ISO time."""
    exit_code: int
    """Of the job."""
    began_after: int = 0
    checkpoint_step: int = 0
    """Of the newest checkpoint, from which the next attempt goes on; 0 for none."""
    stalled: int = 0
    """Attempts in a row, with this one, without a newer checkpoint."""
    rank: int | None = None
    node: str = ""
    signal: str = ""


@dataclass(frozen=True)
class CancelFile:
    """cancelled.json, written by `lockgate cancel`, and by a sweep that ends a trial early."""

    by: str
    """User name."""
    at: str
    """ISO time."""
    state: Literal["cancelled"] = "cancelled"
    early_stop: str = ""
    """The reason why its sweep ended it, for people; empty for every other cancel."""


@dataclass(frozen=True)
class TrialFile:
    """trial.json, written by the submitter before the job is sent: a run's place in its sweep."""

    sweep: str
    """Name of the sweep."""
    values: dict[str, Any] = field(default_factory=dict)
    """The swept settings of this trial by dotted key."""
    array: str | None = None
    """Slurm's name of the job array that it is a task of; null for a job of its own."""
    task: int = 0
    """Its number in the array."""

    def __post_init__(self) -> None:  # the array's name becomes an argument of Slurm's commands
        for name in filter(None, (self.sweep, self.array)):
            if not JOB_NAME.fullmatch(name):
                raise ValueError(f"{shown(name)}: must be the name of a sweep, or of its array")
        if self.task < 0:
            raise ValueError(f"task={self.task}: must be 0 or more")


@dataclass(frozen=True)
class TargetFile:
    """metrics_target.json, written by rank 0 while it serves Prometheus metrics."""

    target: str
    """host:port."""
    run: str = ""
    task: str = ""

    def __post_init__(self) -> None:
        if not TARGET_ADDRESS.fullmatch(self.target):
            raise ValueError(f"target={shown(self.target)}: must be host:port")


@dataclass(frozen=True)
class Reading(Generic[T]):
    """A file as it was found: its value, or the problem with it, or neither when it is missing."""

    value: T | None = None
    problem: str | None = None


@dataclass(frozen=True)
class RunRecord:
    """Everything that a run folder holds about the run's state, read at one time."""

    run: Run
    job: JobFile | None
    status: StatusFile | None
    """status.json with failure.json laid over it."""
    cancelled: bool
    problems: tuple[str, ...]
    """A sentence per file that is there and could not be used."""
    trial: TrialFile | None = None
    """None for a run that is part of no sweep."""
    early_stop: str = ""
    """The reason why its sweep ended it; empty for a run that no sweep ended."""

    @property
    def job_name(self) -> str:
        """The name of its job in Slurm: the run's, or that of the array that it is a task of."""
        return (self.trial.array if self.trial else None) or self.run.name

    @property
    def kind(self) -> str | None:
        """The backend's kind: of job.json, or else of the spec; None when neither is readable."""
        return self.job.kind if self.job else self._cluster("kind")

    @property
    def slurm_conf(self) -> str:
        """SLURM_CONF of the run's cluster; empty for the system's own."""
        if self.job:
            return self.job.slurm_conf or ""
        return self._cluster("slurm_conf") or ""

    @property
    def user(self) -> str:
        """Owner of the run's job: of job.json, or else of the folder."""
        if self.job:
            return self.job.user
        try:
            return user_name(self.run.folder.stat().st_uid)
        except OSError:  # a folder that was just removed
            return ""

    @property
    def failure_line(self) -> str:
        """The line of the failed attempt's error, see `RankFailure`; empty without one."""
        error = self.status.error if self.status else None
        return "" if error is None else error.line

    def _cluster(self, key: str) -> str | None:
        try:
            value = OmegaConf.select(self.run.spec.config, f"cluster.{key}")
        except SpecChanged:
            return None
        return None if value is None else str(value)


def write_run_file(path: Path, content: Any) -> None:
    """Replace `path` with the dataclass `content`; a reader sees the old file or the new one."""
    replace_file(path, json.dumps(asdict(content), indent=2, sort_keys=True) + "\n")


def write_cancelled(run: Run, early_stop: str = "") -> None:
    """Record in the run's folder that this user cancels it now."""
    write_run_file(run.cancelled, CancelFile(by=user_name(), at=utc_now(), early_stop=early_stop))


def read_run_file(kind: type[T], path: Path) -> Reading[T]:
    """`path` as a `kind`; never raises for what stands in it."""
    try:
        content = json.loads(read_regular_file(path, LIMIT_BYTES))
        if not isinstance(content, dict):
            return Reading(problem=f"{path.name} is no JSON object")
        if _has_target(content):  # `build` would import and call it
            return Reading(problem=f"{path.name} names a {TARGET}; it may hold plain values only")
        known = {item.name for item in fields(kind)}  # type: ignore[arg-type]
        plain = {name: value for name, value in content.items() if name in known}
        return Reading(build(kind, plain, path.name))
    except FileNotFoundError:
        return Reading()
    except OSError as error:
        return Reading(problem=f"{path.name} cannot be read: {error.strerror}")
    except (SchemaError, ConfigError) as error:
        return Reading(problem=str(error))
    except ValueError:
        return Reading(problem=f"{path.name} is torn, or no JSON")
    except RecursionError:
        return Reading(problem=f"{path.name} is nested too deep")


def read_status(run: Run) -> Reading[StatusFile]:
    """status.json with failure.json laid over it."""
    status = read_run_file(StatusFile, run.status)
    failure = read_run_file(FailureFile, run.failure)
    problems = [one for one in (status.problem, failure.problem) if one]
    return Reading(with_failure(status.value, failure.value), "; ".join(problems) or None)


def with_failure(status: StatusFile | None, failure: FailureFile | None) -> StatusFile | None:
    """`status` merged with `failure`, which wins if its attempt is at least the status's."""
    if failure is None or (status is not None and failure.attempt < status.attempt):
        return status
    before = status or StatusFile("failed", failure.attempt, failure.run, failure.job_id)
    return replace(
        before, state=failure.state, attempt=failure.attempt, ended=failure.ended,
        metrics=failure.metrics, error=failure.error,
    )  # fmt: skip


def read_record(run: Run) -> RunRecord:
    """Read all of a run's files; a broken one becomes a problem of this record alone."""
    job = read_run_file(JobFile, run.job)
    status = read_status(run)
    cancel = read_run_file(CancelFile, run.cancelled)
    trial = read_run_file(TrialFile, run.trial)
    problems = tuple(one.problem for one in (job, status, cancel, trial) if one.problem)
    return RunRecord(
        run=run,
        job=job.value,
        status=status.value,
        cancelled=cancel.value is not None or cancel.problem is not None,
        problems=problems,
        trial=trial.value,
        early_stop=cancel.value.early_stop if cancel.value else "",
    )


def utc_now() -> str:
    """ISO time to the second, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _has_target(value: object) -> bool:
    if isinstance(value, Mapping):
        return TARGET in value or any(map(_has_target, value.values()))
    return isinstance(value, list) and any(map(_has_target, value))
