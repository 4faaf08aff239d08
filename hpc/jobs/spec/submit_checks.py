"""Checks of a training config at submit: what would fail in the job fails here, as a sentence.

Lockgate's own plug-ins are checked in this process, which imports no torch for them. Others, such
as `torch.optim.SGD` or a module of one's own, are built once in a child process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from conf.errors import ConfigError
from conf.plugin import find_target, is_own
from conf.schema import TARGET, plain_values
from hpc.jobs.errors import error_line
from hpc.jobs.spec.ancestry import InitialWeights
from hpc.jobs.spec.config import (
    PLUGINS,
    TrainConfig,
    cluster_config,
    foreign_targets,
    plugin_values,
    run_config,
    schedule_config,
    train_config,
)
from hpc.jobs.spec.request import check_request

BUILT_OF = (
    *PLUGINS,
    *("precision", "gradient_clipping", "zero_stage", "activation_checkpointing"),
)
"""The keys on which it depends whether task, model and optimizer fit."""
CHECK_TIMEOUT_S = 180
"""A check builds the model without its numbers; importing torch takes most of the time."""


def check_settings(config: DictConfig) -> TrainConfig | None:
    """The typed form of a composed config, checked without a dataset.

    None where a target is not Lockgate's own: `check_fit` then makes it in a child process. Raises
    `ConfigError` naming the key.
    """
    check_request(run_config(config), cluster_config(config))
    schedule_config(config)
    for key in PLUGINS:
        plugin_values(config, key)
    if foreign_targets(config):
        return None
    return train_config(config)


def check_fit(
    config: DictConfig,
    training: TrainConfig | None,
    dataset: Path,
    initial: InitialWeights | None = None,
    passed: set[str] | None = None,
) -> None:
    """Raise `ConfigError` unless task, model, optimizer, dataset and `initial` weights fit.

    `passed` remembers what a child process found fitting, so that trials of a sweep which differ
    in nothing that it looks at are built once.
    """
    if training is not None:
        training.task.check(training.model, dataset)
        if initial is None and not _built_at_submit(training.model):
            return
    subject = json.dumps(
        [plain_values(config.get(key), key) for key in BUILT_OF] + [str(dataset), str(initial)]
    )
    if passed is None or subject not in passed:
        _check_in_child(config, dataset, initial)
        if passed is not None:
            passed.add(subject)


def check_changed(config: DictConfig, dataset: Path, import_path: str | None) -> None:
    """Raise `ConfigError` unless the settings of a run that goes on are valid.

    `import_path` is the PYTHONPATH of the run's own code; None for this process's. Plug-ins that
    are not Lockgate's own are built in a child process of that path.
    """
    check_request(run_config(config), cluster_config(config))
    schedule_config(config)
    if foreign_targets(config):
        _check_in_child(config, dataset, None, import_path)
    else:
        train_config(config)


def _built_at_submit(model: Any) -> bool:
    """True where only building the model checks its settings, because they are a library's."""
    target = model[TARGET]
    return is_own(target) and getattr(find_target(target, "model"), "built_at_submit", False)


def _check_in_child(
    config: DictConfig,
    dataset: Path,
    initial: InitialWeights | None,
    import_path: str | None = None,
) -> None:
    """Run `hpc.jobs.spec.trial_build` for a bounded time, with this process's import path or one.

    `import_path` is a PYTHONPATH.
    """
    plain = plain_values(config, "")
    weights = asdict(initial) if initial else None
    content = json.dumps({"config": plain, "dataset": str(dataset), "initial": weights})
    path = import_path or os.pathsep.join(one for one in sys.path if one)
    environment = {**os.environ, "PYTHONPATH": path}
    keys = ", ".join(foreign_targets(config)) or "model"
    try:
        done = subprocess.run(
            [sys.executable, "-m", "hpc.jobs.spec.trial_build"], input=content, env=environment,
            capture_output=True, text=True, errors="replace", timeout=CHECK_TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"{keys}: building it took more than {CHECK_TIMEOUT_S} s, so it could not be checked. "
            "What takes long belongs into the dataset or into the first step, not into a "
            "constructor."
        ) from None
    if done.returncode != 0:
        raise ConfigError(done.stdout.strip() or f"{keys}: {error_line(done.stderr)}")
