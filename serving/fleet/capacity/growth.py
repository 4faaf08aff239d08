"""Growth of daily peaks: the median of all slopes between two days (Theil-Sen).

One odd day, a holiday or a load test, does not turn it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

DAY_S = 86_400.0
LEAST_DAYS = 7
"""Fewer daily peaks give no date."""
FARTHEST_DAYS = 3 * 365
"""Beyond it a date would be a guess."""


@dataclass(frozen=True)
class Trend:
    """A line through points: `at(x) = level + slope * x`."""

    slope: float
    level: float

    def at(self, x: float) -> float:
        """The line's value at `x`."""
        return self.level + self.slope * x


def fit_trend(points: Sequence[tuple[float, float]]) -> Trend | None:
    """The Theil-Sen line through points, None for fewer than two different `x`."""
    slopes = [(b - a) / (later - first)
              for (first, a), (later, b) in combinations(points, 2) if later != first]  # fmt: skip
    if not slopes:
        return None
    slope = median(slopes)
    return Trend(slope, median(y - slope * x for x, y in points))


def day_of_limit(peaks: Sequence[tuple[float, float]], limit: float, now_s: float) -> float | None:
    """The second of the epoch at which the daily peaks meet `limit`.

    Now where they do already; None where they do not grow, too few days are known, or it is farther
    away than FARTHEST_DAYS. `peaks` are (second of the epoch, value).
    """
    if not peaks:
        return None
    if peaks[-1][1] >= limit:
        return now_s
    trend = fit_trend([((at - now_s) / DAY_S, value) for at, value in peaks])
    if len(peaks) < LEAST_DAYS or trend is None or trend.slope <= 0:
        return None
    days = max(0.0, (limit - trend.level) / trend.slope)
    return now_s + days * DAY_S if days <= FARTHEST_DAYS else None
