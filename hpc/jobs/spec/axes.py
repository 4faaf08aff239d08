"""The axes of a sweep in Hydra's grammar: numbers between two bounds, or choices.

See https://hydra.cc/docs/advanced/override_grammar/extended/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep

from conf import ConfigError
from conf.names import nearest
from hpc.jobs.spec.sweep import choices, parse_override

LOG, INT = "log", "int"


@dataclass(frozen=True)
class Axis:
    """One swept key: `choices`, or else the numbers from `low` to `high`, both among them."""

    key: str
    element: str
    """The key as it is typed, with a + or a package."""
    words: str
    """Its values as they were typed."""
    choices: tuple[str, ...] = ()
    """Values in Hydra's grammar."""
    parsed: tuple[Any, ...] = ()
    """The same as plain values."""
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False
    whole: bool = False
    """Ints alone."""

    def point(self, value: Any) -> Any:
        """The choice, or the number, that `value` of a trial is; None where it is none of here."""
        if self.choices:
            for text, plain in zip(self.choices, self.parsed, strict=True):
                if (type(value), value) in ((str, text), (type(plain), plain)):
                    return text
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if not self.low <= value <= self.high or (self.whole and value != int(value)):
            return None
        if self.step is not None and not _is_whole((value - self.low) / self.step):
            return None
        return int(value) if self.whole else float(value)


def axes_of(overrides: Sequence[str]) -> list[Axis]:
    """The axis of each override of several values. Raises `ConfigError` for one that is none."""
    parsed = [parse_override(text) for text in overrides]
    found = [_axis(one) for one in parsed if one.is_sweep_override()]
    if not found:
        raise ConfigError(
            "a sampler wants ranges to choose from, as in "
            "'optim.lr=tag(log,interval(1e-5,1e-2))' or seed=1,2,3"
        )
    return found


def words_of(axes: Sequence[Axis], point: Mapping[str, Any]) -> list[str]:
    """The overrides of one trial; `point` has a choice or a number for each axis."""
    return [f"{axis.element}={point[axis.key]}" for axis in axes]


def point_of(axes: Sequence[Axis], values: Mapping[str, Any]) -> dict[str, Any] | None:
    """The point of a trial with these values; None for a trial of other keys, or out of range."""
    if {axis.key for axis in axes} != set(values):
        return None
    point = {axis.key: axis.point(values[axis.key]) for axis in axes}
    return None if None in point.values() else point


def _axis(override: Override) -> Axis:
    value, text = override.value(), str(override.input_line)
    key, element = override.key_or_group, override.get_key_element()
    words = text.partition("=")[2]
    tags = set(getattr(value, "tags", ()))
    for tag in sorted(tags - {LOG, INT}):
        raise ConfigError(f"{text}: there is no tag {tag!r}. {nearest(tag, (LOG, INT))}")
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        assert low is not None and high is not None
        whole = INT in tags or (isinstance(low, int) and isinstance(high, int))
        made = (int(low), int(high)) if whole else (float(low), float(high))
        return _numbers(Axis(
            key, element, words, low=made[0], high=made[1], log=LOG in tags, whole=whole,
        ), text)  # fmt: skip
    texts = tuple(choices(text))
    if isinstance(value, RangeSweep) and not value.shuffle:
        numbers = [float(one) for one in texts]
        step = abs(float(value.step))
        whole = all(isinstance(one, int) for one in (value.start, value.stop, value.step))
        low, high = min(numbers), max(numbers)
        if LOG in tags:  # Optuna has no steps between logarithms
            step = 1
        axis = Axis(
            key, element, words, step=int(step) if whole else step, log=LOG in tags, whole=whole,
            low=int(low) if whole else low, high=int(high) if whole else high,
        )  # fmt: skip
        return _numbers(axis, text)
    if not isinstance(value, ChoiceSweep | RangeSweep):
        raise ConfigError(f"{text}: these values cannot be chosen from")
    plain = tuple(parse_override(f"{element}={one}").value() for one in texts)
    return Axis(key, element, words, texts, plain)


def _is_whole(number: float) -> bool:
    """True for 1.9999999999, which a sum of tenths is where 2 is meant."""
    return abs(number - round(number)) < 1e-8


def _numbers(axis: Axis, text: str) -> Axis:
    if not axis.low <= axis.high:
        raise ConfigError(f"{text}: the range ends before it begins")
    if axis.log and axis.low <= 0:
        raise ConfigError(f"{text}: a logarithm wants numbers above 0")
    return axis
