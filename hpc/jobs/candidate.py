"""Make a run's candidate again from its newest checkpoint, with the run's own code.

`export_again` starts `python -m hpc.train.export_again SPEC DIGEST` in the run's source snapshot,
so that the candidate's lineage stays true.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hpc.jobs.errors import JobError, error_line
from hpc.jobs.run.folder import Run
from hpc.jobs.spec.config import cluster_config
from hpc.jobs.spec.snapshot import check_snapshot
from hpc.jobs.variables import job_variables


class NotExported(JobError):
    """There is nothing to export, or exporting failed; the old candidate is as it was."""


def export_again(run: Run) -> Path:
    """Replace `run`'s candidate; returns its folder. Needs no Slurm and one CPU.

    Raises `SpecChanged` for a run whose spec or snapshot was changed, and `NotExported`.
    """
    spec = run.spec
    snapshot = check_snapshot(run.folder.parent / "snapshots", spec)
    variables = job_variables(cluster_config(spec.config), snapshot, str(spec.config.site.root))
    done = subprocess.run(
        [sys.executable, "-m", "hpc.train.export_again", str(run.spec_path), spec.digest],
        env=variables, cwd=run.folder, stdin=subprocess.DEVNULL, stdout=sys.stderr,
        stderr=subprocess.PIPE, text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise NotExported(f"{run.name} was not exported: {error_line(done.stderr)}")
    return run.folder / "candidate"
