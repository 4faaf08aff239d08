"""Simple sweeps: `lr=1e-3,3e-4 seed=1,2` is four trials, each a run of its own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from conf import ConfigError
from conf.overrides import quoted, unparsed

NODE_LISTS = ("cluster.exclude", "cluster.additional_parameters.nodelist")
"""Keys whose comma is Slurm's: n1,n2 are two nodes of one run."""


def trials(overrides: Sequence[str]) -> list[list[str]]:
    """Every combination of the swept values, as lists of overrides, in the order they are written.

    Raises `ConfigError` for an override that does not parse.
    """
    return [list(trial) for trial in product(*(_choices(text) for text in overrides))]


def node_list_as_text(override: str) -> str:
    """An override of a node list, quoted, so that `n1,n2` and `n[1-3]` are one value.

    Raises `ConfigError` for a sweep over node lists; every other override is returned as it is.
    """
    key, _, value = override.partition("=")
    if key.lstrip("+") not in NODE_LISTS or value == "null":
        return override
    text = quoted(override) or override
    if is_sweep(text):
        raise ConfigError(f"{override}: a sweep never runs over nodes; name one list, as in n1,n2")
    return text


def is_sweep(override: str) -> bool:
    """True for an override of several values, as in `seed=1,2` or `seed=range(1,5)`.

    Raises `ConfigError` for one that does not parse.
    """
    return _parse(override).is_sweep_override()


def _choices(text: str) -> list[str]:
    override = _parse(text)
    if not override.is_sweep_override():
        return [text]
    key = override.get_key_element()
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def _parse(text: str) -> Override:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise ConfigError(unparsed(text)) from error
