"""The words that start a rank in its container: options of srun, and the command before Python."""

from __future__ import annotations

import sys

from conf.project import VARIABLE
from hpc.jobs.spec.config import ClusterConfig
from hpc.jobs.spec.container_image import REGISTRY, reference_parts

OURS = (
    *("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "OMP_NUM_THREADS"),
    *("LOCKGATE_SITE", VARIABLE, "SUBMITIT_EXECUTOR"),
)
"""Variables of `hpc.jobs.variables` that count in a container too, whatever its image sets."""


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
