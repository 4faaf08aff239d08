"""Make the model that `model._target_` names, and refuse one that does not fit the task.

A task has sizes that no YAML can hold, such as the dataset's vocabulary. A config dataclass with
`build(**sizes)` takes exactly the sizes of the tasks that it fits. Any other class, such as a
`torch.nn.Module` of one's own, is given those of the sizes that its signature names.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, is_dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import yaml

from conf.errors import ConfigError
from conf.plugin import find_target, is_own, make_plugin, target_name
from conf.schema import TARGET, plain_values
from conf.tree import option_files

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ModelSettings:
    """Settings of a model: the values of `model.*`, and the sizes that its `build` was given.

    Those that a class without `build` was given are among the values.
    """

    node: Mapping[str, Any]
    sizes: Mapping[str, Any]


_settings: WeakKeyDictionary[nn.Module, ModelSettings] = WeakKeyDictionary()


def model_settings(model: nn.Module) -> ModelSettings:
    """Settings from which `build_model` made this very model, so that a package can make it again.

    Raises KeyError for a model that was made otherwise.
    """
    return _settings[model]


def build_model(node: Mapping[str, Any], sizes: Mapping[str, Any]) -> nn.Module:
    """A fresh model in fp32, made of the config `node` and the task's `sizes`.

    Raises `ConfigError` for settings that are refused, and for what is no torch module.
    """
    from torch import nn

    node = plain_values(node, "model")
    target = find_target(node.get(TARGET), "model")
    try:
        if _is_config(target):
            settings = ModelSettings(node, dict(sizes))
            model = make_plugin(node, "model").build(**sizes)
        else:
            taken = _parameters(target)
            given = {name: size for name, size in sizes.items() if name in taken - set(node)}
            settings = ModelSettings({**node, **given}, {})
            model = make_plugin(node, "model", **given)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"model.{error}" if _is_config(target) else f"model: {error}") from error
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"model.{TARGET}={node[TARGET]} made a {type(model).__name__}, not a torch.nn.Module"
        )
    _settings[model] = settings
    return model


def check_model(node: Mapping[str, Any], sizes: Iterable[str], task: str) -> Any:
    """Raise `ConfigError` unless the model of `node` fits a task that gives `sizes`, by name.

    Returns the model's config, or None for a class that is no config. Builds nothing.
    """
    target = find_target(node.get(TARGET), "model")
    if not _is_config(target):
        return None
    config = make_plugin(node, "model")
    if not hasattr(config, "build"):
        raise ConfigError(
            f"model.{TARGET}={node[TARGET]}: {target_name(target)} has no build(), which makes the "
            f"network. {_fitting(set(sizes))}"
        )
    wanted = _parameters(config.build)
    if wanted != set(sizes):
        raise ConfigError(
            f"model.{TARGET}={node[TARGET]}: this model is built of {_listed(wanted)}, and a "
            f"{task} task gives {_listed(sizes)}. {_fitting(set(sizes))}"
        )
    return config


def _fitting(sizes: set[str]) -> str:
    """The choices of conf/model whose model takes exactly `sizes`, as a sentence."""
    names = []
    for option, path in sorted(option_files("model").items()):
        name = yaml.safe_load(path.read_text()).get(TARGET)
        if name and is_own(name):
            target = find_target(name, option)
            if hasattr(target, "build") and _parameters(target.build) - {"self"} == sizes:
                names.append(option)
    return f"Fitting: {', '.join(f'model={name}' for name in names) or 'none in conf/model'}"


def _is_config(target: Any) -> bool:
    return isinstance(target, type) and is_dataclass(target)


def _parameters(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
