"""The schedulers that can run a job, one `Backend` each, by `cluster.kind`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from conf import ConfigError
from conf.names import nearest
from hpc.jobs.local.backend import LocalBackend
from hpc.jobs.run.array import RunArray
from hpc.jobs.run.files import JobFile, RunRecord
from hpc.jobs.run.folder import Run
from hpc.jobs.run.states import Standing
from hpc.jobs.slurm.backend import SlurmBackend
from hpc.jobs.spec.config import ClusterConfig


class Backend(Protocol):
    """A scheduler, as the submit and the commands on runs use it. It holds no state."""

    def environment(self, cluster: ClusterConfig, ambient: Mapping[str, str]) -> dict[str, str]:
        """The variables that this scheduler adds to a job's environment; `ambient` is ours."""

    def script(self, cluster: ClusterConfig, run: Run, digest: str) -> str:
        """The text that would be sent for `run`, whose spec has `digest`."""

    def array_script(self, cluster: ClusterConfig, array: RunArray, digests: Sequence[str]) -> str:
        """The text that would be sent for the runs of `array`, whose specs have `digests`."""

    def check_size(self, cluster: ClusterConfig, variables: Mapping[str, str]) -> None:
        """Raise `ConfigError` for a job that is larger than the scheduler can ever give."""

    def expected_start(self, script: str, variables: Mapping[str, str]) -> str | None:
        """The local time at which the scheduler would start `script` now; None where unknown."""

    def require_ready(self, variables: Mapping[str, str], train_user: str) -> None:
        """Raise a `JobError` unless this process may submit and the scheduler is up."""

    def submit(
        self, cluster: ClusterConfig, run: Run, digest: str, variables: Mapping[str, str]
    ) -> JobFile:
        """Send the job with exactly `variables` as its environment.

        Raises `SubmitRefused` when the scheduler refuses it, and `ConfigError` for settings that
        cannot be sent.
        """

    def submit_array(
        self,
        cluster: ClusterConfig,
        array: RunArray,
        digests: Sequence[str],
        variables: Mapping[str, str],
    ) -> list[JobFile]:
        """Send the jobs of several runs of one size, all or none; raises as `submit` does.

        At most `cluster.sweep_parallel` of one sweep's trials run at a time.
        """

    def withdraw(self, job_name: str, variables: Mapping[str, str]) -> None:
        """End the job of a submit that was interrupted. Raises `SchedulerUnavailable`."""

    def cancel(self, record: RunRecord, timeout_s: float) -> None:
        """End the run's job and record the cancel in its folder; its ranks may save first.

        Returns before the job is gone where the scheduler ends it. Raises `SchedulerUnavailable`,
        and then nothing is recorded.
        """

    def standings(self, records: Sequence[RunRecord]) -> dict[str, Standing]:
        """The state of each run by name; one that cannot be found is unknown, with the reason."""


BACKENDS: Mapping[str, Backend] = MappingProxyType(
    {"slurm": SlurmBackend(), "local": LocalBackend()}
)


def find_backend(kind: str) -> Backend:
    """The backend of `cluster.kind`. Raises `ConfigError` naming those that there are."""
    if kind not in BACKENDS:
        raise ConfigError(f"cluster.kind={kind}: {nearest(kind, BACKENDS)}")
    return BACKENDS[kind]
