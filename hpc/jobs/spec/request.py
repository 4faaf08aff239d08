"""The request that a config makes of a scheduler: what could never work as meant is refused.

Only at submit, so that a run which is in the queue, or over, is read as it was frozen.
"""

from __future__ import annotations

import re

from conf.errors import ConfigError
from conf.names import shown
from hpc.jobs.spec.config import ClusterConfig, RunConfig
from hpc.jobs.spec.container_image import check_container
from hpc.jobs.spec.sbatch_options import MEMORY, asks_for_gpus, check_line, sbatch_options
from hpc.jobs.spec.store_address import check_store_package

NODE_LIST = re.compile(
    r"[A-Za-z0-9_.-]+(\[[0-9,-]+\][A-Za-z0-9_.-]*)*"
    r"(,[A-Za-z0-9_.-]+(\[[0-9,-]+\][A-Za-z0-9_.-]*)*)*"
)
ELSEWHERE = re.compile(r"%[jtAa]|\\|:")
"""Submitit puts a job's numbers for these patterns; Slurm leaves a backslash out of a path; a
colon ends a folder of Python's import path, in which snapshots are."""
INTERPRETED = "TRITON_INTERPRET"


def check_request(run: RunConfig, cluster: ClusterConfig) -> None:
    """Raise `ConfigError`, naming the key, for a job that could not do what its config says."""
    try:
        options = _checked_options(cluster)
    except ValueError as error:
        raise ConfigError(f"cluster.{error}") from None
    if cluster.signal_delay_s == 0 and cluster.max_requeues > 0:
        raise ConfigError(
            "cluster.signal_delay_s=0: at its time limit the job would be killed without a signal "
            "to save, and would not come back. Leave it time, as in cluster.signal_delay_s=90, or "
            "give the run one attempt: cluster.max_requeues=0"
        )
    if run.checkpoint_store is not None:
        check_store_package(run.checkpoint_store)
    with_gpus = cluster.gpus_per_node > 0 or asks_for_gpus(options)
    if run.kernels == "triton" and not with_gpus and INTERPRETED not in cluster.pass_environment:
        raise ConfigError(
            "kernels=triton with cluster.gpus_per_node=0: Triton's kernels run on a GPU. Ask for "
            "one, as in cluster.gpus_per_node=1, or leave the choice to the job: kernels=auto"
        )


def check_runs_folder(folder: str) -> None:
    """Raise `ConfigError` for a path that Slurm or submitit would take for another one."""
    odd = [found[0] for found in ELSEWHERE.finditer(folder)]
    odd += [letter for letter in folder if not letter.isprintable()]
    if odd:
        raise ConfigError(
            f"the folder of runs, {shown(folder)}, has {shown(odd[0])} in it, which Slurm, "
            "submitit or Python's import path take for something else: set site.paths.runs or "
            "$LOCKGATE_SITE to another one"
        )


def _checked_options(cluster: ClusterConfig) -> dict[str, str | int | float | bool]:
    """The further options of sbatch; raises ValueError for a text that is no line of the script."""
    for key in ("partition", "account", "qos"):
        value = getattr(cluster, key)
        if value is not None:
            check_line(key, value)
    if cluster.exclude is not None and not NODE_LIST.fullmatch(cluster.exclude):
        raise ValueError(
            f"exclude={cluster.exclude!r}: must be a list of nodes as Slurm writes it, such as "
            "n1,n2 or n[1-3,7]; null excludes none"
        )
    check_container(cluster)
    options = sbatch_options(cluster.additional_parameters)
    for name in options:
        if name.startswith(MEMORY) and cluster.mem_gb is not None:
            raise ValueError(
                f"additional_parameters.{name.replace('-', '_')}={options[name]} beside "
                f"cluster.mem_gb={cluster.mem_gb:g}: Slurm takes one of them; add "
                "cluster.mem_gb=null"
            )
    return options
