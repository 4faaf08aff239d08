"""Early stopping: the trials that are worse than the median of the others at the same step. Pure.

The rule of Vizier, Golovin et al. 2017 section 3.2.2, see https://doi.org/10.1145/3097983.3098043
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

STOPPED_EARLY = "stopped early"
WARMUP_SHARE = 10
"""A trial is left alone for this part of its steps where no warm-up is named."""


@dataclass(frozen=True)
class TrialCurve:
    """One metric of a trial as far as it has come."""

    run: str
    points: Mapping[int, float]
    """Finite values by step; empty for a trial without data."""
    steps: int
    """Of the whole run."""
    running: bool
    """False for one that waits, or is over: it is compared with, and never ended."""


@dataclass(frozen=True)
class EarlyStop:
    """A trial that is to be ended, with the numbers that decided."""

    run: str
    metric: str
    value: float
    """Its best so far."""
    step: int
    median: float
    """Of the best values of the others up to the same step."""
    others: int

    @property
    def sentence(self) -> str:
        """The reason, as `lockgate ls`, `why` and `show` have it."""
        return (
            f"{STOPPED_EARLY}: best {self.metric} {self.value:.6g} at step {self.step}, "
            f"median {self.median:.6g} of {self.others} others"
        )


def early_stops(
    curves: Sequence[TrialCurve],
    metric: str,
    lower_is_better: bool,
    warmup_steps: int | None,
    startup_trials: int,
) -> list[EarlyStop]:
    """The running trials whose best value is worse than the median of the others.

    The others are those that have come at least as far, each with its best value up to that step;
    with fewer than `startup_trials` of them nothing is ended. Left alone are also a trial before
    `warmup_steps`, one at its last step, one without data, and each with the best value of all,
    whether so far or newest.
    """
    sign = 1 if lower_is_better else -1
    signed = {one.run: {step: sign * value for step, value in one.points.items()} for one in curves}
    best = set(_leaders(signed))
    stops = []
    for one in curves:
        points = signed[one.run]
        if not one.running or not points or one.run in best:
            continue
        step = max(points)
        warmup = one.steps // WARMUP_SHARE if warmup_steps is None else warmup_steps
        if step < warmup or step >= one.steps:
            continue
        others = [
            _best(other, step)
            for run, other in signed.items()
            if run != one.run and other and min(other) <= step <= max(other)
        ]
        if len(others) < startup_trials:
            continue
        value, middle = _best(points, step), median(others)
        if value > middle:
            stops.append(EarlyStop(one.run, metric, sign * value, step, sign * middle, len(others)))
    return stops


def _leaders(signed: Mapping[str, Mapping[int, float]]) -> Iterator[str]:
    """The trials with the lowest value of all, and with the lowest newest value."""
    with_data = {run: points for run, points in signed.items() if points}
    for value_of in (lambda points: min(points.values()), lambda points: points[max(points)]):
        values = {run: value_of(points) for run, points in with_data.items()}
        lowest = min(values.values(), default=None)
        yield from (run for run, value in values.items() if value == lowest)


def _best(points: Mapping[int, float], step: int) -> float:
    """The lowest value up to `step`."""
    return min(value for at, value in points.items() if at <= step)
