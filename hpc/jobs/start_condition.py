"""`after=RUN` and `begin=TIME`: the options of sbatch that let a job wait for them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from conf import ConfigError
from hpc.jobs.errors import UsageError
from hpc.jobs.queue import run_states
from hpc.jobs.run.files import read_record
from hpc.jobs.run.folder import find_runs
from hpc.jobs.run.states import FINISHED, OVER, RunState
from hpc.jobs.slurm.backend import KIND
from hpc.jobs.spec.config import ClusterConfig
from hpc.jobs.spec.sending import SendingConfig

UNIT = re.compile(r"([0-9](?:second|minute|hour|day|week))s?$")
"""Slurm names these in the plural, of one hour too."""


def start_options(sending: SendingConfig, cluster: ClusterConfig, runs: Path) -> dict[str, str]:
    """The options --begin and --dependency of a job on `cluster`; empty for one that need not wait.

    A run of `after` that has finished is no condition any more. Raises `ConfigError` on a cluster
    that cannot wait, and `UsageError` for a run that can never finish, or is not there.
    """
    options: dict[str, str] = {}
    if sending.begin is not None:
        _refuse_other_cluster(cluster, f"begin={sending.begin}")
        options["begin"] = UNIT.sub(r"\1s", sending.begin)
    if sending.waits_for:
        _refuse_other_cluster(cluster, f"after={sending.after}")
        if job_ids := _unfinished_jobs(cluster, sending, runs):
            options["dependency"] = f"afterok:{':'.join(job_ids)}"
    return options


def with_options(cluster: ClusterConfig, options: Mapping[str, str]) -> ClusterConfig:
    """`cluster` with more options of sbatch. Raises `ConfigError` for one that it has already."""
    own = cluster.additional_parameters
    for name, key in (("begin", "begin"), ("dependency", "after")):
        if name in options and name in own:
            raise ConfigError(
                f"{key}=... beside cluster.additional_parameters.{name}: Slurm takes one of them"
            )
    return replace(cluster, additional_parameters={**own, **options}) if options else cluster


def _refuse_other_cluster(cluster: ClusterConfig, words: str) -> None:
    if cluster.kind != KIND:
        raise ConfigError(
            f"{words}: only Slurm lets a run wait; cluster.kind={cluster.kind} starts it at once. "
            "Leave it out, or choose a Slurm cluster, as in cluster=box"
        )


def _unfinished_jobs(cluster: ClusterConfig, sending: SendingConfig, runs: Path) -> list[str]:
    """The ids of the jobs that have not finished yet."""
    job_ids = []
    found = find_runs(runs, sending.waits_for)
    for run, state in zip(found, run_states(found), strict=True):
        record = read_record(run)
        if state.state == FINISHED:
            continue
        if state.state in OVER:
            raise UsageError(_never(state))
        if (
            record.job is None
            or record.kind != KIND
            or record.slurm_conf != (cluster.slurm_conf or "")
        ):
            raise UsageError(
                f"after={run.name}: it has no job in the Slurm of this cluster, so no job there "
                "can wait for it"
            )
        job_ids.append(record.job.job_id)
    return job_ids


def _never(state: RunState) -> str:
    return (
        f"after={state.run}: it is {state.state}, so a run after it would never start. "
        f"Send it again first, or leave after= out (lockgate why {state.run})"
    )
