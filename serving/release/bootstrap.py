"""Confidence intervals by a bootstrap over whole groups.

Rows of one group (visits of one patient, texts of one author) are not independent, so groups are
drawn again, with replacement, and a replicate is a weight per group: the number of its draws. The
bootstrap is Efron's (1979), https://doi.org/10.1214/aos/1176344552; intervals are percentiles of
the replicates (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from serving.release.statistics import Floats, Statistic

BLOCK = 1 << 22
"""Weights held at a time, in numbers: 32 MiB."""
COUNTED_GROUPS = 10_000
"""Groups from which a draw is counted group by group instead of drawn as one multinomial."""


@dataclass(frozen=True)
class Interval:
    """An estimate on the data as it is, and the bounds that hold `level` of the replicates."""

    estimate: float
    low: float
    high: float
    level: float

    def __str__(self) -> str:
        return f"{self.estimate:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True)
class Draws:
    """`replicates` draws of `groups` groups with replacement; the same for the same `seed`."""

    groups: int
    replicates: int
    seed: int

    def __post_init__(self) -> None:
        if self.groups < 2:
            raise ValueError(
                f"{self.groups} group(s) show nothing of how groups differ: need at least 2"
            )

    def weights(self) -> Iterator[Floats]:
        """The draws as counts per group, in blocks [r, groups] that sum to [replicates, groups]."""
        draw = np.random.default_rng(self.seed)
        share = np.full(self.groups, 1 / self.groups)
        size = max(1, BLOCK // self.groups)
        for start in range(0, self.replicates, size):
            count = min(size, self.replicates - start)
            if self.groups <= COUNTED_GROUPS:
                yield draw.multinomial(self.groups, share, size=count).astype(float)
            else:
                drawn = draw.integers(0, self.groups, (count, self.groups))
                yield np.stack([np.bincount(one, minlength=self.groups) for one in drawn]).astype(
                    float
                )


def estimate(statistic: Statistic, groups: int) -> float:
    """The statistic on the data as it is: each of `groups` groups once."""
    return float(statistic.at(np.ones((1, groups)))[0])


def replicates(statistics: Sequence[Statistic], draws: Draws) -> list[Floats]:
    """Every statistic on the same draws, [replicates] each: what pairs a comparison."""
    parts: list[list[Floats]] = [[] for _ in statistics]
    for weights in draws.weights():
        for part, statistic in zip(parts, statistics, strict=True):
            part.append(statistic.at(weights))
    return [np.concatenate(part) for part in parts]


def interval(found: float, drawn: Floats, level: float) -> Interval:
    """The percentile interval at `level` (such as 0.95) of the replicates `drawn` [R].

    Raises ValueError when more than 1 % of them are undefined.
    """
    usable = drawn[np.isfinite(drawn)]
    if len(usable) < 0.99 * len(drawn):
        raise ValueError(f"{len(drawn) - len(usable)} of {len(drawn)} draws had one class")
    tail = (1 - level) / 2
    low, high = np.quantile(usable, [tail, 1 - tail])
    return Interval(float(found), float(low), float(high), level)


def difference_interval(one: Statistic, other: Statistic, draws: Draws, level: float) -> Interval:
    """The interval of `one - other`, paired: both are computed on the same drawn groups."""
    first, second = replicates([one, other], draws)
    found = estimate(one, draws.groups) - estimate(other, draws.groups)
    return interval(found, first - second, level)
