"""Submit: resolve, freeze, send. The run's folder is there and complete, or it is not there."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

from omegaconf import DictConfig
from submitit.core.utils import FailedJobError, FailedSubmissionError

from conf import ConfigError, repo_root
from hpc.data.lineage import current, read
from hpc.data.refusal import DataRefused
from hpc.jobs import entry, sbatch
from hpc.jobs.config import ClusterConfig, cluster_config, run_config
from hpc.jobs.environment import describe, installed, job_variables
from hpc.jobs.errors import DatasetMissing, JobError, PersonsMistake, SubmitRefused
from hpc.jobs.marker import write_marker
from hpc.jobs.process import started_ticks
from hpc.jobs.resolve import resolve
from hpc.jobs.run import Run, run_name
from hpc.jobs.scheduler import ask, last_words, require_controller
from hpc.jobs.snapshot import Checkout, discard, read_checkout, take
from hpc.jobs.spec import JobSpec, frozen
from serving.artifact.durable import replace_file
from serving.artifact.lineage import DatasetRef


@dataclass(frozen=True)
class Plan:
    """A run that could be submitted; making it has written nothing."""

    run: Run
    spec: JobSpec
    cluster: ClusterConfig
    checkout: Checkout
    packages: tuple[str, ...]
    variables: Mapping[str, str]  # the job's whole environment

    @property
    def script(self) -> str:
        """What would be sent: the batch script, or the command of the local executor."""
        if self.cluster.kind == "slurm":
            return sbatch.script(self.cluster, self.run)
        return " ".join(_local_command(self)) + "\n"


@dataclass(frozen=True)
class Submitted:
    """A run that the scheduler has taken."""

    run: Run
    job_id: str


def plan(config: DictConfig, now: datetime | None = None) -> Plan:
    """Resolve and freeze a composed training config.

    Raises `conf.ConfigError` or a `JobError` that says what is wrong with it.
    """
    cluster = cluster_config(config)
    run_config(config)
    plain = resolve(config, cluster.pass_environment)
    checkout = read_checkout(repo_root())
    packages = installed()
    spec = JobSpec(
        task=str(config.task.name),
        config=frozen(plain),
        source=checkout.source,
        dataset=_dataset(config),
        environment=describe(packages),
    )
    runs = Path(config.site.paths.runs)
    run = Run(runs / run_name(spec, now or datetime.now(UTC)))
    snapshot = runs / "snapshots" / spec.source.digest
    variables = job_variables(cluster, snapshot, str(config.site.root))
    return Plan(run, spec, cluster, checkout, tuple(packages), variables)


def submit(ready: Plan) -> Submitted:
    """Write the run's folder and send the job; returns as soon as the scheduler has it.

    Raises a `JobError`, and leaves no folder behind, when the scheduler is not there or says no.
    """
    run = ready.run
    if ready.cluster.kind == "slurm":
        _refuse_root(ready)
        require_controller(ready.variables)
    with _no_access(run.folder.parent):
        take(ready.checkout, run.folder.parent / "snapshots")
        run.folder.mkdir(parents=True, mode=0o755)
    try:
        _fill(ready)
        job_id = _send(ready)
        write_marker(run.job, _job_marker(ready, job_id))
    except BaseException:
        # Ctrl-C in the middle too: a job whose folder is gone must not stay in the queue.
        _withdraw(ready)
        discard(run.folder)
        raise
    return Submitted(run, job_id)


def _dataset(config: DictConfig) -> DatasetRef:
    name = str(config.task.dataset)
    try:
        folder = current(Path(config.site.paths.data), name)
        lineage = read(folder)
    except DataRefused as error:
        raise DatasetMissing(str(error)) from error
    return DatasetRef(name=name, digest=lineage.digest, path=str(folder))


def _fill(ready: Plan) -> None:
    run = ready.run
    run.logs.mkdir()
    run.submitit.mkdir(mode=0o700)
    replace_file(run.folder / "environment.txt", "\n".join(ready.packages) + "\n", mode=0o444)
    if ready.checkout.diff:
        replace_file(run.folder / "source.diff", ready.checkout.diff, mode=0o444)
    ready.spec.write(run.spec_path)


def _send(ready: Plan) -> str:
    if ready.cluster.kind == "local":
        return _start_local(ready)
    try:
        # submitit prints what sbatch says; we say it in our own sentence.
        with _environment(ready.variables), redirect_stderr(StringIO()):
            job = sbatch.executor(ready.cluster, ready.run).submit(
                entry.run, str(ready.run.spec_path), ready.spec.digest
            )
    except (FailedJobError, FailedSubmissionError) as error:
        raise SubmitRefused(
            f"sbatch refused the job: {last_words(str(error))}. Nothing was submitted; the job's "
            "size and place are set by cluster.* (lockgate train --cfg job shows them)."
        ) from error
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"submitit refused the settings of the cluster: {error}") from error
    return job.job_id


def _start_local(ready: Plan) -> str:
    with (ready.run.logs / "launcher.log").open("ab") as log:
        process = subprocess.Popen(
            _local_command(ready), env=dict(ready.variables), cwd=ready.run.folder,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    return str(process.pid)


def _local_command(ready: Plan) -> list[str]:
    arguments = [str(ready.run.spec_path), ready.spec.digest]
    return [sys.executable, "-m", "hpc.jobs.local", *arguments]


def _job_marker(ready: Plan, job_id: str) -> dict[str, object]:
    cluster = ready.cluster
    marker: dict[str, object] = {
        "kind": cluster.kind,
        "job_id": job_id,
        "submitted": datetime.now(UTC).isoformat(timespec="seconds"),
        "user": pwd.getpwuid(os.getuid()).pw_name,
        "ranks": cluster.ranks,
        "slurm_conf": ready.variables.get("SLURM_CONF"),
    }
    if cluster.kind == "local":
        marker["process_started"] = started_ticks(int(job_id))
    return marker


def _withdraw(ready: Plan) -> None:
    if ready.cluster.kind == "slurm":
        try:
            ask(["scancel", f"--name={ready.run.name}"], ready.variables)
        except JobError as error:
            print(f"lockgate: {error} (while withdrawing {ready.run.name})", file=sys.stderr)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Exactly `variables` and nothing else: sbatch sends the job what it finds around itself."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _no_access(runs: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        who = pwd.getpwuid(os.getuid()).pw_name
        raise PersonsMistake(
            f"{who} may not write to {runs}; runs belong to the training user. "
            "On the site in a box: scripts/site as train lockgate train ..."
        ) from error
    except FileExistsError as error:
        raise PersonsMistake(
            f"{error.filename} is there already: the same run was submitted this very second."
        ) from error


def _refuse_root(ready: Plan) -> None:
    if os.getuid() == 0:
        user = ready.spec.config.site.users.train
        raise PersonsMistake(
            f"root does not train; {user} does. "
            "On the site in a box: scripts/site as train lockgate train ..."
        )
