"""The settings that a run which goes on may change, and the refusal of all others.

What may change decides where and how long a run computes, and how its model is served; what would
change the numbers that are learned makes another run, which can begin with this one's weights.
"""

from __future__ import annotations

import copy
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from conf import ConfigError
from conf.names import nearest
from conf.overrides import unparsed
from hpc.jobs.errors import UsageError
from hpc.jobs.spec.settings import flat_settings
from hpc.jobs.spec.sweep import list_as_text

FREE = (
    *("steps", "log_interval", "eval_interval", "checkpoint_interval", "keep_checkpoints"),
    *("keep_every", "keep_best", "checkpoint_async", "hang_timeout_s", "prefetch_batches"),
    *("zero_stage", "checkpoint_store"),
)
"""Keys of the top that may change; for zero_stage see hpc.jobs.run.elastic."""
FREE_BELOW = ("cluster", "task.serve")
SERVE = "task.serve."
MODEL_NAME = f"{SERVE}model"
EXTRA = "cluster.additional_parameters."
"""The one place where a key may be added."""


@dataclass(frozen=True)
class RefusedChange:
    """The beginning of a new run's command that a refused change is answered with."""

    words: Sequence[str]
    """`lockgate train` with the run's settings; empty where no words give them."""
    weights: str
    """RUN@STEP."""

    def sentence(self, key: str, override: str) -> str:
        """The refusal of `override`, which sets `key`."""
        command = shlex.join([*(self.words or ("lockgate", "train")), f"init_from={self.weights}"])
        return (
            f"{override}: {key} changes what is learned, so it would be another run than the one "
            f"it goes on from. Start a new one with its weights: {command} {shlex.quote(override)}"
        )


def changed_settings(
    config: Mapping[str, Any],
    overrides: Sequence[str],
    cluster_option: Callable[[str], Mapping[str, Any]],
    refused: RefusedChange,
) -> dict[str, Any]:
    """`config`, a parent's plain settings, with `overrides` in it.

    `cluster_option` gives the settings of `cluster=NAME`. Raises `ConfigError` for an override that
    does not parse or whose key is not there, and `UsageError` for one that may not change. One that
    gives a setting the value that it has is no change.
    """
    made = copy.deepcopy(dict(config))
    known = flat_settings(config)
    for text in overrides:
        override = parsed_change(text)
        key, value = override.get_key_element().lstrip("+"), override.value()
        if key == "cluster":
            made["cluster"] = dict(cluster_option(str(value)))
            continue
        if key in known and not may_change(key):
            if _same(known[key], value):
                continue
            raise UsageError(_fixed(key, text, refused))
        if not may_change(key):
            if any(one.startswith(f"{key}.") for one in known) or key in ("model", "optim", "task"):
                raise UsageError(refused.sentence(key, text))
            raise ConfigError(
                f"{key}: there is no such key. {nearest(key, filter(may_change, known))}"
            )
        _put(made, key, value)
    return made


def may_change(key: str) -> bool:
    """True for the dotted key of a setting that a resumed run may change."""
    below = any(key.startswith(f"{group}.") for group in FREE_BELOW)
    return (below or key in FREE) and key != MODEL_NAME


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Dotted key -> [before, after] of the settings that are not the same; null where not there."""
    old, new = flat_settings(before), flat_settings(after)
    return {
        key: [old.get(key), new.get(key)]
        for key in sorted(old.keys() | new.keys())
        if (key in old) != (key in new) or not _same(old[key], new[key])
    }


def _fixed(key: str, text: str, refused: RefusedChange) -> str:
    if key == MODEL_NAME:
        return (
            f"{text}: {key} is the name under which the model is registered and served; a resumed "
            "run keeps it"
        )
    if key == "init_from":
        return f"{text}: a resumed run begins with its parent's checkpoint, {refused.weights}"
    if key.startswith("site."):
        return f"{text}: a resumed run stays on its site; site=NAME only finds the run"
    return refused.sentence(key, text)


def parsed_change(text: str) -> Override:
    """`key=value` with one value. Raises `ConfigError` for anything else."""
    try:
        override = OverridesParser.create().parse_override(list_as_text(text))
    except HydraException as error:
        raise ConfigError(unparsed(text)) from error
    if override.is_sweep_override() or override.is_delete():
        raise ConfigError(f"{text}: a run goes on with one value, written key=value")
    added = override.is_add() or override.is_force_add()
    if added and not override.get_key_element().lstrip("+").startswith(EXTRA):
        raise ConfigError(f"{text}: only {EXTRA}NAME can be added; write key=value")
    return override


def _put(config: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    node: Any = config
    for part in path:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise ConfigError(f"{key}: {part} is no mapping")
    node[last] = value


def _same(one: object, other: object) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)
