"""The trials of a sweep: their swept values, what makes them themselves, and the sweep's name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.names import LETTERS, check_name, nearest_name
from hpc.jobs.spec.job_spec import JobSpec
from hpc.jobs.spec.settings import flat_settings
from hpc.jobs.submit import SubmitPlan
from serving.artifact.digest import bytes_sha256, canonical_json

NOT_COMPARED = ("cluster.", "site.")
"""Keys that decide where and how long a trial runs, and not which one it is."""


@dataclass(frozen=True)
class Trial:
    """One combination of a sweep, ready to be sent."""

    plan: SubmitPlan
    values: dict[str, Any]
    """The swept settings by dotted key."""

    @cached_property
    def settings(self) -> str:
        """Digest of what makes it this trial: its config without cluster and site.

        With those of them that the sweep runs over.
        """
        places = {
            key: value for key, value in self.values.items() if f"{key}.".startswith(NOT_COMPARED)
        }
        return _digest({**self.config, **places})

    @cached_property
    def base(self) -> str:
        """Digest of the same without the swept keys, one for all trials of a sweep.

        Empty for a sweep over tasks, which sets what it likes.
        """
        if "task" in self.values:
            return ""
        prefixes = tuple(f"{key}." for key in self.values)
        return _digest(
            {
                key: value
                for key, value in self.config.items()
                if key not in self.values and not key.startswith(prefixes)
            }
        )

    @cached_property
    def config(self) -> dict[str, Any]:
        """The flat config of the trial, see `trial_settings`."""
        return trial_settings(self.plan.spec)


def trial_settings(spec: JobSpec) -> dict[str, Any]:
    """The flat config of a trial without where and how long it runs."""
    settings = flat_settings(spec.content()["config"])
    return {key: value for key, value in settings.items() if not key.startswith(NOT_COMPARED)}


def trial_values(
    config: DictConfig, overrides: Sequence[str], keys: Sequence[str]
) -> dict[str, Any]:
    """The values of the swept `keys`: those of the config, or as they were typed.

    `overrides` are the trial's own, in Hydra's grammar.
    """
    typed = {text.partition("=")[0].lstrip("+~"): text.partition("=")[2] for text in overrides}
    return {key: _value(config, key, typed.get(key, "")) for key in keys}


def sweep_name(typed: str | None, trials: Sequence[Trial]) -> str:
    """The name that was typed, or one of the task, the swept keys and a digest of all trials.

    The same line at the same code and data has the same name. Raises `ConfigError` for no name.
    """
    if typed is not None:
        return check_name("sweep", typed)
    digests = sorted(one.plan.spec.digest for one in trials)
    leaves = [key.rpartition(".")[2] for key in trials[0].values]
    words = nearest_name("-".join([trials[0].plan.spec.task, *leaves]), LETTERS - 8)
    return f"{words or 'sweep'}-{hashlib.sha256(' '.join(digests).encode()).hexdigest()[:6]}"


def _value(config: DictConfig, key: str, typed: str) -> Any:
    try:
        value = OmegaConf.select(config, key)
    except OmegaConfBaseException:
        return typed
    return typed if value is None or OmegaConf.is_config(value) else value


def _digest(settings: dict[str, Any]) -> str:
    return bytes_sha256(canonical_json(settings))
