"""Compose a primary config with a person's overrides, and name the nearest key on a typo."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.errors import ConfigError
from conf.names import nearest

TREE = Path(__file__).resolve().parent


def repo_root() -> Path:
    """The folder that holds `conf/`: the checkout, or the source snapshot a job runs from."""
    return TREE.parent


OmegaConf.register_new_resolver("repo", lambda: str(repo_root()), replace=True)


def compose(primary: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Compose `conf/<primary>.yaml` with `overrides` in Hydra's grammar.

    The result is in struct mode: reading a key that does not exist raises. Raises `ConfigError`
    for an override that does not parse, or names a key, a group or an option that is not there.
    """
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(TREE), version_base="1.3", job_name=primary):
            return hydra_compose(config_name=primary, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(primary, list(overrides), error)) from error


def options(group: str) -> list[str]:
    """The choices of a config group, such as `options("task") == ["flights", "lm"]`."""
    return sorted(path.stem for path in (TREE / group).glob("*.yaml"))


def groups() -> list[str]:
    """Every config group, such as `cluster`, `model` or `site`."""
    folders = {path.parent.relative_to(TREE).as_posix() for path in TREE.glob("*/**/*.yaml")}
    return sorted(folders)


def _explain(primary: str, overrides: list[str], error: Exception) -> str:
    reason = str(error).strip().splitlines()[0]
    valid = [*groups(), *_keys_of(primary, overrides)]
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException:
            return f"override {text!r} does not parse; write key=value (see lockgate train --help)"
        key = override.key_or_group
        if key in groups():
            choice, choices = override.value(), options(key)
            if isinstance(choice, str) and choice not in choices:
                return f"{key}={choice}: there is no such {key}. {nearest(choice, choices)}"
        elif key not in valid and not override.is_add():
            return f"{key}: there is no such key in {primary}. {nearest(key, valid)}"
    missing = re.search(r"You must specify '([\w/]+)'", str(error))
    if missing:
        group = missing.group(1)
        return (
            f"{group}: choose one of {', '.join(options(group))}, as in {group}={options(group)[0]}"
        )
    return reason


def _keys_of(primary: str, overrides: list[str]) -> list[str]:
    """The keys of the tree with the group choices that do compose, to look for near names in."""
    choices = [text for text in overrides if text.split("=", 1)[0] in groups()]
    for attempt in (choices, []):
        try:
            with initialize_config_dir(config_dir=str(TREE), version_base="1.3"):
                return list(_flatten(hydra_compose(config_name=primary, overrides=attempt)))
        except (HydraException, OmegaConfBaseException):
            continue
    return []


def _flatten(node: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in map(str, node):
        name = f"{prefix}{key}"
        yield name
        if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
            child = node[key]
            if isinstance(child, DictConfig):
                yield from _flatten(child, f"{name}.")
