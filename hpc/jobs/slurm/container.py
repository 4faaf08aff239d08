"""The words that start a rank in its container: options of srun, and the command before Python."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping

from conf.errors import ConfigError
from conf.project import VARIABLE
from hpc.jobs.errors import SchedulerUnavailable
from hpc.jobs.slurm.commands import query
from hpc.jobs.spec.config import ClusterConfig
from hpc.jobs.spec.container_image import REGISTRY, reference_parts

OURS = (
    *("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "OMP_NUM_THREADS"),
    *("LOCKGATE_SITE", VARIABLE, "SUBMITIT_EXECUTOR"),
)
"""Variables of `hpc.jobs.variables` that count in a container too, whatever its image sets."""

VERSION = re.compile(r"\b([0-9]{2})\.([0-9]{2})\.")
EACH_RANK_ITSELF = (23, 2)
"""Version of Slurm from which each rank of a container has variables of its own: 22.05 gives all of
them those of the batch script, so that each takes itself for rank 0."""


def check_version(cluster: ClusterConfig, variables: Mapping[str, str]) -> None:
    """Raise `ConfigError` for more ranks in containers of Slurm's own than its version can tell
    apart. Where Slurm does not answer, nothing is known and nothing is refused."""
    if cluster.container is None or cluster.container_runtime != "oci" or cluster.ranks == 1:
        return
    try:
        words = query(["sinfo", "--version"], variables).strip()
    except SchedulerUnavailable:
        return
    found = VERSION.search(words)
    if found and (int(found[1]), int(found[2])) < EACH_RANK_ITSELF:
        raise ConfigError(
            f"cluster.container={cluster.container} with {cluster.ranks} ranks: {words} gives all "
            "ranks of a container the variables of one. Ask for one, cluster.nodes=1 "
            "cluster.tasks_per_node=1, or set cluster.container_runtime=pyxis or apptainer"
        )


def srun_options(cluster: ClusterConfig) -> list[str]:
    """Options of srun for the ranks' container; none without one, and for apptainer.

    The batch script itself stays outside: it calls scontrol. See
    https://slurm.schedmd.com/containers.html and https://github.com/NVIDIA/pyxis/wiki/Usage
    """
    image = cluster.container
    if image is None or cluster.container_runtime == "apptainer":
        return []
    if cluster.container_runtime == "oci":
        return [f"--container={image}"]
    options = [f"--container-image={_enroot_name(image)}", "--no-container-mount-home"]
    if cluster.container_mounts:
        binds = ",".join(f"{folder}:{folder}" for folder in cluster.container_mounts)
        options.append(f"--container-mounts={binds}")
    return [*options, f"--container-env={','.join([*OURS, *cluster.pass_environment])}"]


def rank_python(cluster: ClusterConfig) -> list[str]:
    """The words before `-m` of a rank's command: its interpreter, in apptainer's container or not.

    See https://apptainer.org/docs/user/latest/cli/apptainer_exec.html
    """
    if cluster.container is None:
        return [sys.executable]
    python = cluster.container_python or sys.executable
    if cluster.container_runtime != "apptainer":
        return [python]
    binds = [word for folder in cluster.container_mounts for word in ("--bind", folder)]
    gpus = ["--nv"] if cluster.gpus_per_node else []
    return ["apptainer", "exec", "--no-home", *gpus, *binds, cluster.container, python]


def _enroot_name(image: str) -> str:
    """enroot's name of an image: a path, or REGISTRY#IMAGE@sha256:DIGEST."""
    if not image.startswith(REGISTRY):
        return image
    name, digest = reference_parts(image)
    host, slash, rest = name.partition("/")
    if slash and ("." in host or ":" in host or host == "localhost"):
        name = f"{host}#{rest}"
    return f"{name}@sha256:{digest}"
