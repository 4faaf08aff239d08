"""Names in a training config: of the task, its dataset and its model, held to `conf.names`.

They become folders, Slurm jobs, labels and arguments of commands.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from conf import ConfigError
from conf.names import check_name
from hpc.jobs.spec.sweep import is_sweep

NAMED = ("task.name", "task.dataset", "task.serve.model")


def check_config_names(config: DictConfig, overrides: Sequence[str] = ()) -> None:
    """Raise `ConfigError` for a name in `config` that is none; `overrides` were typed for it."""
    for key in NAMED:
        value = OmegaConf.select(config, key)
        if value is not None:
            check_name(key, str(value), _command(key, overrides))


def check_typed_names(overrides: Sequence[str]) -> None:
    """Raise `ConfigError` for a typed name with letters that Hydra's grammar gives a meaning."""
    for text in overrides:
        key, _, value = text.partition("=")
        if key in NAMED and not _parses(text):
            check_name(key, value, _command(key, overrides))


def _command(key: str, overrides: Sequence[str]) -> str:
    others = [text for text in overrides if text.partition("=")[0] != key]
    return f"{shlex.join(['lockgate', 'train', *(others or ['task=NAME'])])} {key}={{}}"


def _parses(text: str) -> bool:
    try:
        is_sweep(text)
    except ConfigError:
        return False
    return True
