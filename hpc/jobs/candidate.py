"""Make a run's candidate again from its newest checkpoint, with the run's own code.

`export_again` starts `python -m hpc.jobs.candidate SPEC DIGEST` in the run's source snapshot, so
that the candidate's lineage stays true.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from conf.errors import ConfigError
from hpc.jobs.config import cluster_config, train_config
from hpc.jobs.environment import job_variables
from hpc.jobs.errors import JobError
from hpc.jobs.run import Run
from hpc.jobs.scheduler import error_line
from hpc.jobs.snapshot import check_snapshot
from hpc.jobs.spec import read_spec


class NotExported(JobError):
    """There is nothing to export, or exporting failed; the old candidate is as it was."""


def export_again(run: Run) -> Path:
    """Replace `run`'s candidate; returns its folder. Needs no Slurm and one CPU.

    Raises `SpecMoved` for a run whose spec or snapshot was changed, and `NotExported`.
    """
    spec = run.spec
    snapshot = check_snapshot(run.folder.parent / "snapshots", spec)
    variables = job_variables(cluster_config(spec.config), snapshot, str(spec.config.site.root))
    done = subprocess.run(
        [sys.executable, "-m", "hpc.jobs.candidate", str(run.spec_path), spec.digest],
        env=variables, cwd=run.folder, stdin=subprocess.DEVNULL, stdout=sys.stderr,
        stderr=subprocess.PIPE, text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise NotExported(f"{run.name} was not exported: {error_line(done.stderr)}")
    return run.folder / "candidate"


def main(argv: list[str]) -> int:
    """In the snapshot: the newest good checkpoint's weights, evaluated and exported."""
    spec_path, digest = argv
    run = Run(Path(spec_path).parent)
    spec = read_spec(run.spec_path, digest)
    from safetensors.torch import load_file

    from hpc.train.checkpoint import WEIGHTS, Checkpoints
    from hpc.train.finish import evaluate_and_export

    checkpoints = Checkpoints(run.folder / "checkpoints", 1, spec.digest)
    step = checkpoints.newest()
    if step != spec.config.steps:
        print(
            f"error: its newest good checkpoint is of step {step} and the run ends at step "
            f"{spec.config.steps}; only a finished run has a candidate",
            file=sys.stderr,
        )
        return 1
    weights = load_file(checkpoints.folder / f"{step:08d}" / WEIGHTS)
    try:
        config = train_config(spec.config)
        evaluate_and_export(config, spec, weights, run.folder / "candidate", _print_metrics)
    except (ConfigError, JobError) as error:  # a sentence for people; the stack adds nothing
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _print_metrics(metrics: Mapping[str, float]) -> None:
    print("validation  " + "  ".join(f"{name} {value:.4f}" for name, value in metrics.items()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
