"""Submit: resolve, freeze, send. The run's folder is there and complete, or it is not there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from omegaconf import DictConfig

from conf.modes import sharing_new_files
from conf.user import user_name
from hpc.data.lineage import current_dataset, read_lineage
from hpc.data.refusal import DataRefused
from hpc.jobs.backend import Backend, find_backend
from hpc.jobs.errors import DatasetMissing, JobError, UsageError
from hpc.jobs.run.files import write_run_file
from hpc.jobs.run.folder import Run, run_name
from hpc.jobs.run.init_from import find_initial_weights
from hpc.jobs.spec.ancestry import InitialWeights
from hpc.jobs.spec.config import (
    ClusterConfig,
    cluster_config,
    run_config,
    with_whole_numbers,
)
from hpc.jobs.spec.environment import environment_of, installed_packages
from hpc.jobs.spec.job_spec import JobSpec, frozen
from hpc.jobs.spec.names import check_config_names
from hpc.jobs.spec.request import check_runs_folder
from hpc.jobs.spec.resolve import resolve
from hpc.jobs.spec.snapshot import Code, discard, read_code, snapshot_of, take_snapshot
from hpc.jobs.spec.submit_checks import check_fit, check_settings
from hpc.jobs.variables import job_variables
from serving.artifact.durable import replace_file
from serving.artifact.lineage import DatasetRef


@dataclass(frozen=True)
class SubmitPlan:
    """A run that could be submitted; making it has written nothing."""

    run: Run
    spec: JobSpec
    cluster: ClusterConfig
    code: Code | None  # None: the snapshot of the spec's source is there, and is used again
    packages: tuple[str, ...]
    variables: Mapping[str, str]  # the job's whole environment
    inherit: Callable[[Run], None] | None = None
    """Puts what the run has of its parent into its folder."""

    @property
    def script(self) -> str:
        """The text that would be sent: the batch script, or the command of the local executor."""
        return find_backend(self.cluster.kind).script(self.cluster, self.run, self.spec.digest)


@dataclass(frozen=True)
class Submitted:
    """A run that the scheduler has taken."""

    run: Run
    job_id: str


def plan(config: DictConfig, now: datetime | None = None) -> SubmitPlan:
    """Resolve and freeze a composed training config.

    Raises `conf.ConfigError` or a `JobError` for settings, code or data that cannot be frozen.
    """
    cluster = cluster_config(config)
    find_backend(cluster.kind)
    check_config_names(config)
    training = check_settings(config)
    runs = Path(config.site.paths.runs)
    check_runs_folder(str(runs))
    plain = resolve(config, cluster.pass_environment)
    code = read_code()
    packages = installed_packages()
    dataset = _dataset(config)
    initial = _initial_weights(config, runs)
    check_fit(config, training, dataset.folder, initial)
    if initial is not None:
        plain["init_from"] = initial.words
    spec = JobSpec(
        task=str(config.task.name),
        config=frozen(with_whole_numbers(plain, run_config(config), cluster)),
        source=code.checkout.source,
        project=code.project.source if code.project else None,
        dataset=dataset,
        environment=environment_of(packages),
        initial=initial,
    )
    run = Run(runs / run_name(spec, now or datetime.now(UTC)))
    snapshot = snapshot_of(runs / "snapshots", spec.source, spec.project)
    variables = job_variables(cluster, snapshot, str(config.site.root))
    return SubmitPlan(run, spec, cluster, code, tuple(packages), variables)


def check_sizes(plans: Sequence[SubmitPlan]) -> None:
    """Raise `ConfigError` for a run that its scheduler could never start.

    The scheduler is asked once for all runs of one size.
    """
    seen: list[ClusterConfig] = []
    for ready in plans:
        if ready.cluster not in seen:
            seen.append(ready.cluster)
            find_backend(ready.cluster.kind).check_size(ready.cluster, ready.variables)


def submit(ready: SubmitPlan) -> Submitted:
    """Write the run's folder and send the job; returns as soon as the scheduler has it.

    Raises a `JobError`, and leaves no folder behind, when the scheduler is not there or refuses it.
    """
    run, backend = ready.run, find_backend(ready.cluster.kind)
    backend.require_ready(ready.variables, str(ready.spec.config.site.users.train))
    with sharing_new_files():
        with _no_access(run.folder.parent):
            if ready.code is not None:
                take_snapshot(ready.code, run.folder.parent / "snapshots")
            run.folder.mkdir(parents=True)
        try:
            _fill(ready)
            job = backend.submit(ready.cluster, run, ready.spec.digest, ready.variables)
            write_run_file(run.job, job)
        except BaseException:
            # Ctrl-C in the middle too: a job whose folder is gone must not stay in the queue.
            _withdraw(ready, backend)
            discard(run.folder)
            raise
    return Submitted(run, job.job_id)


def _dataset(config: DictConfig) -> DatasetRef:
    name = str(config.task.dataset)
    try:
        folder = current_dataset(Path(config.site.paths.data), name)
        lineage = read_lineage(folder)
    except DataRefused as error:
        raise DatasetMissing(str(error)) from error
    return DatasetRef(name=name, digest=lineage.digest, path=str(folder))


def _initial_weights(config: DictConfig, runs: Path) -> InitialWeights | None:
    words = config.get("init_from")
    return None if words is None else find_initial_weights(runs, str(words))


def _fill(ready: SubmitPlan) -> None:
    run = ready.run
    run.logs.mkdir()
    run.submitit.mkdir(mode=0o700)
    replace_file(run.folder / "environment.txt", "\n".join(ready.packages) + "\n", mode=0o444)
    if ready.code is not None:
        for name, tree in (("source", ready.code.checkout), ("project", ready.code.project)):
            if tree and tree.diff:
                replace_file(run.folder / f"{name}.diff", tree.diff, mode=0o444)
    if ready.inherit is not None:
        ready.inherit(run)
    ready.spec.write(run.spec_path)


def _withdraw(ready: SubmitPlan, backend: Backend) -> None:
    try:
        backend.withdraw(ready.run, ready.variables)
    except JobError as error:
        print(f"lockgate: {error} (while withdrawing {ready.run.name})", file=sys.stderr)


@contextmanager
def _no_access(runs: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        who = user_name()
        raise UsageError(
            f"{who} may not write to {runs}; runs belong to the training user. "
            "On the site in a box: scripts/site as train lockgate train ..."
        ) from error
    except FileExistsError as error:
        raise UsageError(
            f"{error.filename} is there already: the same run was submitted this very second."
        ) from error
