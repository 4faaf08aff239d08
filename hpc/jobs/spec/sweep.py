"""Simple sweeps: `lr=1e-3,3e-4 seed=1,2` is four trials, each a run of its own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from conf import ConfigError
from conf.overrides import quoted, text_quoted, unparsed

WHOLE_LISTS = {
    "cluster.exclude": "a sweep never runs over nodes; name one list, as in n1,n2",
    "cluster.additional_parameters.nodelist": (
        "a sweep never runs over nodes; name one list, as in n1,n2"
    ),
    "after": "all trials of a sweep wait for the same runs; name one list, as in RUN,RUN",
}
"""Keys whose comma makes one list, with why they are no axis of a sweep."""
ONE_VALUE = ("sweep", "begin", "sweeper")
"""Keys that all trials of a sweep have in common."""


def trials(overrides: Sequence[str]) -> list[list[str]]:
    """Every combination of the swept values, as lists of overrides, in the order they are written.

    Raises `ConfigError` for an override that does not parse, and for several names of one sweep.
    """
    check_in_common(overrides)
    return [list(trial) for trial in product(*(_values(text) for text in overrides))]


def check_in_common(overrides: Sequence[str]) -> None:
    """Raise `ConfigError` for several values of what all trials have in common."""
    for text in overrides:
        key = text.partition("=")[0].lstrip("+")
        if key.partition(".")[0] in ONE_VALUE and is_sweep(text):
            raise ConfigError(f"{text}: all trials of a sweep have this in common; name one value")


def first_trial(overrides: Sequence[str]) -> list[str]:
    """The overrides with the first value of each swept key, and without intervals."""
    return [_values(text)[0] for text in overrides if not parse_override(text).is_interval_sweep()]


def swept_keys(overrides: Sequence[str]) -> list[str]:
    """The keys of the overrides with several values, in the order they are written."""
    return [str(parse_override(text).key_or_group) for text in overrides if is_sweep(text)]


def list_as_text(override: str) -> str:
    """An override of a list of nodes or runs, quoted, so that `n1,n2` and `n[1-3]` are one value.

    Raises `ConfigError` for a sweep over such lists. A path or a name that wants quotes gets them,
    and every other override is returned as it is.
    """
    key, _, value = override.partition("=")
    place = key.lstrip("+")
    if place not in WHOLE_LISTS or value == "null":
        return text_quoted(override)
    text = quoted(override) or override
    if is_sweep(text):
        raise ConfigError(f"{override}: {WHOLE_LISTS[place]}")
    return text


def is_sweep(override: str) -> bool:
    """True for an override of several values, as in `seed=1,2` or `seed=range(1,5)`.

    Raises `ConfigError` for one that does not parse.
    """
    return parse_override(override).is_sweep_override()


def choices(text: str) -> list[str]:
    """The values of an override of several, in Hydra's grammar.

    Raises `ConfigError` for values that have no end, or that only a folder of configs has.
    """
    override = parse_override(text)
    if override.is_interval_sweep():
        raise ConfigError(
            f"{text}: a range has no end of values, and a grid wants each of them. Let Optuna "
            "choose, with sweeper=optuna sweeper.trials=20, or name the values, as in "
            f"{override.get_key_element()}=1e-3,1e-4"
        )
    try:
        return list(override.sweep_string_iterator())
    except HydraException:
        raise ConfigError(f"{text}: name the values themselves, with commas") from None


def _values(text: str) -> list[str]:
    override = parse_override(text)
    if not override.is_sweep_override():
        return [text]
    return [f"{override.get_key_element()}={value}" for value in choices(text)]


def parse_override(text: str) -> Override:
    """`text` in Hydra's grammar; raises `ConfigError` with what to type where it does not parse."""
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise ConfigError(unparsed(text)) from error
