"""Traffic as a value: requests a second, minute by minute, drawn from a seed.

A drawn one has what real ones have: a wave over the day, quieter weekends, growth, noise, and
bursts that nothing announces.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

MINUTE_S = 60
DAY_MINUTES = 24 * 60
WEEK_MINUTES = 7 * DAY_MINUTES
BUSIEST_MINUTE = 20 * 60
"""Of the day, in UTC: the afternoon of the United States."""
DRAWN_MODEL = "drawn"


@dataclass(frozen=True)
class TrafficTrace:
    """Requests a second of each model in each minute from `begin_s`, a second of the epoch."""

    begin_s: float
    per_s: Mapping[str, tuple[float, ...]]

    def __post_init__(self) -> None:
        if len({len(rates) for rates in self.per_s.values()}) > 1:
            raise ValueError("per_s: every model must have as many minutes")

    @property
    def minutes(self) -> int:
        """Its length."""
        return len(next(iter(self.per_s.values()), ()))


@dataclass(frozen=True)
class DrawnTraffic:
    """The shape of drawn traffic."""

    mean_per_s: float
    """Requests a second in the mean of the first week's days, without bursts."""
    daily: float
    """Share of the mean by which a day's busiest minute is above it, and the quietest below."""
    weekend: float
    """Share of a weekday's requests on Saturday and on Sunday."""
    weekly_growth: float
    """Share that each week has more than the one before."""
    noise: float
    """Standard deviation of a minute's requests, as a share of them."""
    bursts_per_week: float
    """Bursts in the mean, at times that nothing announces."""
    burst: float
    """Times the requests of before, while a burst lasts."""
    burst_minutes: int
    """Length of a burst."""

    def __post_init__(self) -> None:
        for name in ("mean_per_s", "weekend", "noise", "bursts_per_week", "burst"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: must not be negative")
        if not 0 <= self.daily <= 1:
            raise ValueError(f"daily={self.daily}: must be 0 to 1")
        if self.weekly_growth <= -1:
            raise ValueError(f"weekly_growth={self.weekly_growth}: must be above -1")
        if self.burst_minutes < 1:
            raise ValueError(f"burst_minutes={self.burst_minutes}: must be at least 1")


def draw_traffic(shape: DrawnTraffic, days: int, seed: int, begin_s: float) -> TrafficTrace:
    """The same minutes for the same seed."""
    draw = random.Random(seed)
    rates, left = [], 0
    for minute in range(days * DAY_MINUTES):
        if not left and draw.random() < shape.bursts_per_week / WEEK_MINUTES:
            left = shape.burst_minutes
        rate = _expected(shape, minute, begin_s) * max(0.0, draw.gauss(1, shape.noise))
        rates.append(rate * (shape.burst if left else 1))
        left = max(0, left - 1)
    return TrafficTrace(begin_s, {DRAWN_MODEL: tuple(rates)})


def _expected(shape: DrawnTraffic, minute: int, begin_s: float) -> float:
    at = datetime.fromtimestamp(begin_s + minute * MINUTE_S, UTC)
    angle = 2 * math.pi * (at.hour * 60 + at.minute - BUSIEST_MINUTE) / DAY_MINUTES
    day = shape.weekend if at.weekday() >= 5 else 1.0
    grown = (1 + shape.weekly_growth) ** (minute / WEEK_MINUTES)
    return shape.mean_per_s * (1 + shape.daily * math.cos(angle)) * day * grown
