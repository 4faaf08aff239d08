"""The composed configs of a sweep's trials.

Composing takes Hydra a tenth of a second. So the first trial is composed, and another one whose
plain values alone differ is the first with these values, set as Hydra itself sets them last of all.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from functools import cached_property

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from conf import compose
from conf.tree import groups

OF_THE_SITE = re.compile(r"([^$]*\$\{(site\.[\w.]+|repo:)\})+[^$]*")
"""Text whose references are to the site's own keys, or to this checkout."""


def compose_trials(trials: Sequence[Sequence[str]]) -> list[DictConfig]:
    """The config of each trial; `trials` are lists of overrides of one length, alike in order.

    Raises `ConfigError` as `conf.compose` does.
    """
    configs = TrialConfigs(trials[0])
    return [configs.of(trial) for trial in trials]


class TrialConfigs:
    """The configs of trials beside a first one, whose overrides are `first`.

    Config files are read once for all trials whose plain values alone differ, however much later.
    Raises `ConfigError` as `conf.compose` does.
    """

    def __init__(self, first: Sequence[str]) -> None:
        self._words = list(first)
        self._config = compose("train", first)

    def of(self, trial: Sequence[str]) -> DictConfig:
        """The config of a trial: a list of overrides as long as the first one's, alike in order."""
        changed = [text for text, other in zip(trial, self._words, strict=True) if text != other]
        if not changed:
            return self._config
        overrides = [OverridesParser.create().parse_override(text) for text in changed]
        if all(_is_plain(one, trial, self._groups) for one in overrides):
            return _with_values(self._model, overrides)
        return compose("train", trial)

    @cached_property
    def _model(self) -> DictConfig:
        return _with_resolved_site(self._config)

    @cached_property
    def _groups(self) -> list[str]:
        return groups()


def _is_plain(override: Override, trial: Sequence[str], known: Sequence[str]) -> bool:
    """True for `key=value` of a key that is no group, and that no other override touches."""
    key = override.key_or_group
    if override.is_add() or override.is_delete() or override.package or key in known:
        return False
    if isinstance(override.value(), dict):  # would be merged with the first trial's
        return False
    others = [text.partition("=")[0].lstrip("+~") for text in trial]
    near = [
        one
        for one in others
        if one not in known  # a group comes before all values
        and (one == key or one.startswith(f"{key}.") or key.startswith(f"{one}."))
    ]
    return len(near) == 1


def _with_resolved_site(config: DictConfig) -> DictConfig:
    """A copy in which the site's references to itself are their values.

    Most of a config's references are there, and resolving one takes longer than all else of a
    trial. A site that refers to anything else, or to a variable, stays as it is in that place.
    """
    made = copy.deepcopy(config)
    OmegaConf.set_readonly(made, False)
    _resolve(made.get("site"))
    return made


def _resolve(node: object) -> None:
    if not isinstance(node, DictConfig):
        return
    for key in node:
        if OmegaConf.is_interpolation(node, str(key)):
            raw = OmegaConf.to_container(node, resolve=False)
            assert isinstance(raw, dict)
            if OF_THE_SITE.fullmatch(str(raw[key])) and not OmegaConf.is_config(node[key]):
                node[key] = node[key]
        else:
            _resolve(node[key])


def _with_values(config: DictConfig, overrides: Sequence[Override]) -> DictConfig:
    made = copy.deepcopy(config)
    for override in overrides:
        OmegaConf.update(made, override.key_or_group, override.value(), merge=True)
    return made
