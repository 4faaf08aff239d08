"""The proof that a rank is in its container: a slurmd without oci.conf passes --container over."""

from __future__ import annotations

from pathlib import Path

from hpc.jobs.errors import JobError
from hpc.jobs.spec.job_spec import ContainerImage

UID_MAP = Path("/proc/self/uid_map")
WHOLE_MACHINE = ["0", "0", "4294967295"]
"""The map of users outside of any user namespace."""


def require_container(image: ContainerImage, uid_map: Path = UID_MAP) -> None:
    """Raise `JobError` where a rank of Slurm's own containers works outside of one.

    Those are never root's (rootless), so that each has a map of users of its own. pyxis and
    apptainer fail where they are not installed, and need no proof.
    """
    if image.runtime == "oci" and uid_map.read_text().split() == WHOLE_MACHINE:
        raise JobError(
            f"this rank is not in its container {image.image}: Slurm passed --container over, as "
            "it does on a node without oci.conf. Whoever runs the cluster can add it; without a "
            "container: cluster.container=null"
        )
