"""`python -m hpc.train.export_again SPEC DIGEST [LIMITS]`: a finished run's candidate, once more.

LIMITS is a JSON object of corrected serving limits by dotted key. `hpc.jobs.candidate` starts it in
the run's source snapshot. Standard error has a sentence when it fails; exit code 2 is for limits.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file

from conf.errors import ConfigError, LockgateError
from conf.modes import share_new_files
from hpc.jobs.run.folder import Run
from hpc.jobs.run.log_output import configure_logging
from hpc.jobs.spec.config import train_config
from hpc.jobs.spec.job_spec import read_spec
from hpc.train.checkpoint import WEIGHTS, Checkpoints
from hpc.train.export import evaluate_and_export
from hpc.train.retention import Retention


def main(argv: list[str]) -> int:
    """Evaluate and export the newest good checkpoint's weights; 1 or 2 when that fails.

    Raises `SpecChanged` for a spec without this digest.
    """
    spec_path, digest, *limits = argv
    share_new_files()
    configure_logging()
    run = Run(Path(spec_path).parent)
    spec = read_spec(run.spec_path, digest)
    checkpoints = Checkpoints(run.checkpoints, Retention(1), spec.digest)
    step = checkpoints.newest()
    if step != spec.config.steps:
        print(
            f"error: its newest good checkpoint is of step {step} and the run ends at step "
            f"{spec.config.steps}; only a finished run has a candidate",
            file=sys.stderr,
        )
        return 1
    try:
        config = train_config(_with_limits(spec.config, json.loads(limits[0]) if limits else {}))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code if limits else 1
    weights = load_file(checkpoints.folder / f"{step:08d}" / WEIGHTS)
    try:
        evaluate_and_export(config, spec, weights, run.folder / "candidate", _print_metrics)
    except LockgateError as error:  # a sentence for people; the stack adds nothing
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _with_limits(config: DictConfig, limits: Mapping[str, Any]) -> DictConfig:
    """`config` with other values at the dotted keys of `limits`."""
    made = OmegaConf.create(OmegaConf.to_container(config, resolve=False))
    for key, value in limits.items():
        OmegaConf.update(made, key, value)
    assert isinstance(made, DictConfig)  # as the config of a spec is
    return made


def _print_metrics(metrics: Mapping[str, float]) -> None:
    print("validation  " + "  ".join(f"{name} {value:.4f}" for name, value in metrics.items()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
