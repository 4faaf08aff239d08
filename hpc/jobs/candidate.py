"""Make a run's candidate again from its newest checkpoint, with the run's own code.

`export_again` starts `python -m hpc.train.export_again SPEC DIGEST` in the run's source snapshot,
so that the candidate's lineage stays true.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from conf import ConfigError
from conf.errors import MISTAKE
from conf.names import nearest
from hpc.jobs.errors import JobError, UsageError, error_line
from hpc.jobs.run.folder import Run
from hpc.jobs.spec import ancestry
from hpc.jobs.spec.changes import MODEL_NAME, SERVE, parsed_change
from hpc.jobs.spec.config import cluster_config
from hpc.jobs.spec.job_spec import JobSpec
from hpc.jobs.spec.snapshot import check_snapshot
from hpc.jobs.variables import job_variables


class NotExported(JobError):
    """There is nothing to export, or exporting failed; the old candidate is as it was."""


class LimitsRefused(UsageError):
    """A corrected serving limit that is none, or out of range; the old candidate is as it was."""


def serving_limits(spec: JobSpec, overrides: Sequence[str]) -> dict[str, Any]:
    """The corrected limits of `overrides` by key. Raises `ConfigError` for any other key.

    The values are checked by the run's own code, see `export_again`.
    """
    limits = {}
    for text in overrides:
        override = parsed_change(text)
        key = override.get_key_element()
        if not key.startswith(SERVE):
            known = [f"{SERVE}{name}" for name in spec.config.task.get("serve", {})]
            valid = [name for name in known if name != MODEL_NAME]
            raise ConfigError(
                f"{text}: a finished run is exported as it was trained; only the limits of its "
                f"serving may be corrected. {nearest(key, valid)}"
            )
        if key == MODEL_NAME:
            raise ConfigError(
                f"{text}: {key} is the name under which the model is registered and served; a new "
                "name is a new run's: lockgate train ... init_from=RUN"
            )
        limits[key] = override.value()
    return limits


def export_again(run: Run, limits: Mapping[str, Any] | None = None) -> Path:
    """Replace `run`'s candidate; returns its folder. Needs no Slurm and one CPU.

    `limits` are those of `serving_limits`. Raises `SpecChanged` for a run whose spec or snapshot
    was changed, `LimitsRefused`, and `NotExported`.
    """
    spec = run.spec
    snapshot = check_snapshot(run.folder.parent / "snapshots", spec)
    if limits and not (snapshot.folder / ancestry.FILE).is_file():
        raise LimitsRefused(
            f"{run.name} was submitted with a Lockgate that exported no other limits than those of "
            f"the run. Go on with the code as it stands: lockgate resume {run.name} "
            f"--source current steps={int(spec.config.steps) + 1} {next(iter(limits))}=..."
        )
    variables = job_variables(cluster_config(spec.config), snapshot, str(spec.config.site.root))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "hpc.train.export_again", str(run.spec_path), spec.digest),
            *([json.dumps(dict(limits))] if limits else []),
        ],
        env=variables, cwd=run.folder, stdin=subprocess.DEVNULL, stdout=sys.stderr,
        stderr=subprocess.PIPE, text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode == MISTAKE:
        raise LimitsRefused(f"{run.name} was not exported: {error_line(done.stderr)}")
    if done.returncode != 0:
        raise NotExported(f"{run.name} was not exported: {error_line(done.stderr)}")
    return run.folder / "candidate"
