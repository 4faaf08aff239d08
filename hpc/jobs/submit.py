"""Submit: resolve, freeze, send. The run's folder is there and complete, or it is not there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from omegaconf import DictConfig

from conf.modes import sharing_new_files
from conf.user import user_name
from hpc.data.lineage import current_dataset, read_lineage
from hpc.data.refusal import DataRefused
from hpc.jobs.backend import Backend, find_backend
from hpc.jobs.errors import DatasetMissing, JobError, UsageError
from hpc.jobs.run.array import RunArray
from hpc.jobs.run.files import JobFile, TrialFile, write_run_file
from hpc.jobs.run.folder import Run, run_name
from hpc.jobs.run.init_from import find_initial_weights
from hpc.jobs.spec.ancestry import InitialWeights
from hpc.jobs.spec.config import (
    ClusterConfig,
    cluster_config,
    run_config,
    with_whole_numbers,
)
from hpc.jobs.spec.container_image import frozen_image
from hpc.jobs.spec.environment import environment_of, installed_packages
from hpc.jobs.spec.job_spec import ContainerImage, JobSpec
from hpc.jobs.spec.names import check_config_names
from hpc.jobs.spec.request import check_runs_folder
from hpc.jobs.spec.resolve import resolve
from hpc.jobs.spec.sending import SendingConfig, without_sending
from hpc.jobs.spec.snapshot import Code, discard, read_code, snapshot_of, take_snapshot
from hpc.jobs.spec.submit_checks import check_fit, check_settings
from hpc.jobs.start_condition import start_options, with_options
from hpc.jobs.variables import job_variables
from serving.artifact.durable import replace_file
from serving.artifact.lineage import DatasetRef


@dataclass(frozen=True)
class InstalledCode:
    """Code and packages as they stand, read once for all runs of a command."""

    code: Code
    packages: tuple[str, ...]
    fitting: set[str] = field(default_factory=set)
    """Of the runs planned with it, see `hpc.jobs.spec.submit_checks.check_fit`."""
    images: dict[tuple[str | None, ...], ContainerImage | None] = field(default_factory=dict)
    """By the words that name them: a sweep digests its image once."""


@dataclass(frozen=True)
class SubmitPlan:
    """A run that could be submitted; making it has written nothing."""

    run: Run
    spec: JobSpec
    cluster: ClusterConfig
    """The spec's, with what the job waits for among the further options of sbatch."""
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


def read_installed() -> InstalledCode:
    """Code and packages of this moment."""
    return InstalledCode(read_code(), tuple(installed_packages()))


def plan(
    config: DictConfig, now: datetime | None = None, installed: InstalledCode | None = None
) -> SubmitPlan:
    """Resolve and freeze a composed training config.

    `installed` is read anew where it is not given. Raises `conf.ConfigError` or a `JobError` for
    settings, code or data that cannot be frozen.
    """
    cluster = cluster_config(config)
    find_backend(cluster.kind)
    check_config_names(config)
    training = check_settings(config)
    runs = Path(config.site.paths.runs)
    check_runs_folder(str(runs))
    plain = without_sending(resolve(config, cluster.pass_environment))
    installed = installed or read_installed()
    code, packages = installed.code, installed.packages
    dataset = _dataset(config)
    initial = _initial_weights(config, runs)
    check_fit(config, training, dataset.folder, initial, installed.fitting)
    if initial is not None:
        plain["init_from"] = initial.words
    spec = JobSpec(
        task=str(config.task.name),
        plain=with_whole_numbers(plain, run_config(config), cluster),
        source=code.checkout.source,
        project=code.project.source if code.project else None,
        dataset=dataset,
        environment=environment_of(packages),
        initial=initial,
        container=_image(cluster, installed),
    )
    run = Run(runs / run_name(spec, now or datetime.now(UTC)))
    snapshot = snapshot_of(runs / "snapshots", spec.source, spec.project)
    variables = job_variables(cluster, snapshot, str(config.site.root))
    return SubmitPlan(run, spec, cluster, code, packages, variables)


def waiting_for(plans: Sequence[SubmitPlan], sending: SendingConfig) -> list[SubmitPlan]:
    """`plans` that wait for the time and the runs of `sending`, which are looked up once.

    Raises `ConfigError` on a cluster that cannot wait, and `UsageError` for a run that can never
    finish, or is not there.
    """
    options: dict[tuple[str, str | None], dict[str, str]] = {}
    waiting = []
    for ready in plans:
        place = (ready.cluster.kind, ready.cluster.slurm_conf)
        if place not in options:
            options[place] = start_options(sending, ready.cluster, ready.run.folder.parent)
        waiting.append(replace(ready, cluster=with_options(ready.cluster, options[place])))
    return waiting


def check_sizes(plans: Sequence[SubmitPlan]) -> None:
    """Raise `ConfigError` for a run that its scheduler could never start.

    The scheduler is asked once for all runs of one size.
    """
    seen: list[ClusterConfig] = []
    for ready in plans:
        if ready.cluster not in seen:
            seen.append(ready.cluster)
            find_backend(ready.cluster.kind).check_size(ready.cluster, ready.variables)


def submit(ready: SubmitPlan, trial: TrialFile | None = None) -> Submitted:
    """Write the run's folder and send the job; returns as soon as the scheduler has it.

    `trial` is its place in a sweep. Raises a `JobError`, and leaves no folder behind, when the
    scheduler is not there or refuses it.
    """
    with _all_or_nothing([ready], [trial], ready.run.name) as backend:
        job = backend.submit(ready.cluster, ready.run, ready.spec.digest, ready.variables)
        write_run_file(ready.run.job, job)
    return Submitted(ready.run, job.job_id)


def submit_array(
    plans: Sequence[SubmitPlan], trials: Sequence[TrialFile], array: RunArray
) -> list[Submitted]:
    """Write the folders of several runs of one size and send them together, as `submit` does one.

    Either all are submitted, or none of their folders stays.
    """
    first, digests = plans[0], [ready.spec.digest for ready in plans]
    jobs: list[JobFile] = []
    try:
        with _all_or_nothing(plans, trials, array.name) as backend:
            jobs = backend.submit_array(first.cluster, array, digests, first.variables)
            for ready, job in zip(plans, jobs, strict=True):
                write_run_file(ready.run.job, job)
    except BaseException:
        discard(array.folder)
        raise
    return [Submitted(one.run, job.job_id) for one, job in zip(plans, jobs, strict=True)]


@contextmanager
def _all_or_nothing(
    plans: Sequence[SubmitPlan], trials: Sequence[TrialFile | None], job_name: str
) -> Iterator[Backend]:
    """The backend, with the folders of `plans` written; an error inside the block removes them."""
    first = plans[0]
    runs, backend = first.run.folder.parent, ready_backend(first)
    made: list[Run] = []
    with sharing_new_files():
        try:
            with _no_access(runs):
                if first.code is not None:
                    take_snapshot(first.code, runs / "snapshots")
                for ready in plans:
                    ready.run.folder.mkdir(parents=True)
                    made.append(ready.run)
            for ready, trial in zip(plans, trials, strict=True):
                _fill(ready, trial)
            yield backend
        except BaseException:
            # Ctrl-C in the middle too: a job whose folder is gone must not stay in the queue.
            if len(made) == len(plans):
                _withdraw(job_name, backend, first.variables)
            for run in made:
                discard(run.folder)
            raise


def ready_backend(ready: SubmitPlan) -> Backend:
    """The backend of `ready`, which is up and takes jobs of this user. Raises a `JobError`."""
    backend = find_backend(ready.cluster.kind)
    backend.require_ready(ready.variables, str(ready.spec.plain["site"]["users"]["train"]))
    return backend


def free_name(ready: SubmitPlan, taken: set[str]) -> Run:
    """The run of `ready` under a name that is not `taken` nor there: that of a later second."""
    run, second = ready.run, 0
    while run.name in taken or run.folder.exists():
        second += 1
        run = Run(
            run.folder.with_name(run_name(ready.spec, datetime.now(UTC) + timedelta(0, second)))
        )
    return run


def _dataset(config: DictConfig) -> DatasetRef:
    name = str(config.task.dataset)
    try:
        folder = current_dataset(Path(config.site.paths.data), name)
        lineage = read_lineage(folder)
    except DataRefused as error:
        raise DatasetMissing(str(error)) from error
    return DatasetRef(name=name, digest=lineage.digest, path=str(folder))


def _image(cluster: ClusterConfig, installed: InstalledCode) -> ContainerImage | None:
    key = (
        cluster.container, cluster.container_runtime, cluster.container_python,
        *cluster.container_mounts,
    )  # fmt: skip
    if key not in installed.images:
        installed.images[key] = frozen_image(cluster)
    return installed.images[key]


def _initial_weights(config: DictConfig, runs: Path) -> InitialWeights | None:
    words = config.get("init_from")
    return None if words is None else find_initial_weights(runs, str(words))


def _fill(ready: SubmitPlan, trial: TrialFile | None) -> None:
    run = ready.run
    run.logs.mkdir()
    run.submitit.mkdir(mode=0o700)
    # Not fsynced one by one: of forty trials that is seconds, and no job reads these two.
    packages = "\n".join(ready.packages) + "\n"
    replace_file(run.folder / "environment.txt", packages, mode=0o444, durable=False)
    if ready.code is not None:
        for name, tree in (("source", ready.code.checkout), ("project", ready.code.project)):
            if tree and tree.diff:
                replace_file(run.folder / f"{name}.diff", tree.diff, mode=0o444, durable=False)
    if trial is not None:
        write_run_file(run.trial, trial)
    if ready.inherit is not None:
        ready.inherit(run)
    ready.spec.write(run.spec_path)


def _withdraw(job_name: str, backend: Backend, variables: Mapping[str, str]) -> None:
    try:
        backend.withdraw(job_name, variables)
    except JobError as error:
        print(f"lockgate: {error} (while withdrawing {job_name})", file=sys.stderr)


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
