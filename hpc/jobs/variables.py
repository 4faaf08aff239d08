"""The environment variables that a job starts with."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from conf import ConfigError
from conf.project import VARIABLE
from conf.user import user_name
from hpc.jobs.backend import find_backend
from hpc.jobs.spec.config import ClusterConfig
from hpc.jobs.spec.snapshot import SourceSnapshot

# A login environment in its smallest form; anything else is named in cluster.pass_environment.
ALWAYS = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ")


def job_variables(
    cluster: ClusterConfig,
    snapshot: SourceSnapshot,
    site_root: str,
    ambient: Mapping[str, str] = os.environ,
) -> dict[str, str]:
    """The whole environment that a job starts with; nothing else of the submitter's travels.

    Variables of a surrounding Slurm job (SLURM_*, MASTER_ADDR, ...) are left behind, so that
    submitting from inside a job works. Raises `ConfigError` for a variable that is named in
    cluster.pass_environment and not set.
    """
    unset = [name for name in cluster.pass_environment if name not in ambient]
    if unset:
        raise ConfigError(
            f"cluster.pass_environment names {', '.join(unset)}, which is not set here. "
            "Export it before submitting, or take it off the list."
        )
    names = (*ALWAYS, *cluster.pass_environment)
    variables = {name: ambient[name] for name in names if name in ambient}
    for name in (
        "USER",
        "LOGNAME",
    ):  # Python's getpass fails for a user without a name, but for these
        variables.setdefault(name, user_name())
    variables |= {
        "PYTHONPATH": ":".join(map(str, filter(None, (snapshot.folder, snapshot.project)))),
        VARIABLE: str(snapshot.project or ""),  # empty: none, whatever folder the job stands in
        "PYTHONDONTWRITEBYTECODE": "1",  # the snapshot is read-only, and stays what it is
        "PYTHONUNBUFFERED": "1",
        "LOCKGATE_SITE": site_root,
        "OMP_NUM_THREADS": str(cluster.cpus_per_task),
        # The Python that submits is the Python that runs, also for programs that a task starts.
        "PATH": f"{Path(sys.executable).parent}:{variables.get('PATH', os.defpath)}",
    }
    return variables | find_backend(cluster.kind).environment(cluster, ambient)
