"""How sure a number is: a bootstrap over whole days, in closed form per replicate.

Flights of one day share its weather and its delays, so rows are not independent and days are what
is drawn again, with replacement. A replicate is a weight per day (how often it was drawn); AUC and
mean loss are functions of these weights and of sums kept per day, so ten thousand replicates of a
large hold-out cost one matrix product each.

    AUC(w) = sum_de w_d w_e wins[d, e] / (sum_d w_d positives_d * sum_e w_e negatives_e)

where wins[d, e] counts the pairs of a positive of day d and a negative of day e that the scores
order rightly, ties counting one half.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


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
class DailyAuc:
    """What AUC is made of, per pair of days: `wins` [D, D], `positives` [D], `negatives` [D]."""

    wins: Floats
    positives: Floats
    negatives: Floats

    def at(self, weights: Floats) -> Floats:
        """AUC for each row of `weights` [R, D] -> [R]; NaN where a class was not drawn at all."""
        won = np.einsum("rd,rd->r", weights @ self.wins, weights)
        pairs = (weights @ self.positives) * (weights @ self.negatives)
        return np.divide(won, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


@dataclass(frozen=True)
class DailyMean:
    """What a mean over rows is made of: `sums` [D] and `rows` [D]."""

    sums: Floats
    rows: Floats

    def at(self, weights: Floats) -> Floats:
        """The mean for each row of `weights` [R, D] -> [R]."""
        return (weights @ self.sums) / (weights @ self.rows)


def number_days(days: NDArray) -> NDArray[np.int64]:
    """Days of any sortable kind [N] as 0..D-1 [N]."""
    return np.unique(np.asarray(days), return_inverse=True)[1].astype(np.int64)


def daily_auc(labels: NDArray, scores: NDArray, day: NDArray[np.int64]) -> DailyAuc:
    """AUC's sums of 0/1 `labels` [N] and `scores` [N] on days 0..D-1 [N]; O(D N log N)."""
    labels, scores = np.asarray(labels).astype(bool), np.asarray(scores, np.float64)
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} scores are not finite numbers")
    count = int(day.max()) + 1 if len(day) else 0
    wins = np.zeros((count, count))
    positive, positive_day = scores[labels], day[labels]
    for d in range(count):
        negative = np.sort(scores[~labels & (day == d)])
        below = np.searchsorted(negative, positive, "left")
        upto = np.searchsorted(negative, positive, "right")
        wins[:, d] = np.bincount(positive_day, weights=(below + upto) / 2, minlength=count)
    return DailyAuc(
        wins=wins,
        positives=np.bincount(day[labels], minlength=count).astype(float),
        negatives=np.bincount(day[~labels], minlength=count).astype(float),
    )


def daily_mean(values: NDArray, day: NDArray[np.int64]) -> DailyMean:
    """The mean's sums of `values` [N] on days 0..D-1 [N]."""
    values = np.asarray(values, np.float64)
    return DailyMean(
        sums=np.bincount(day, weights=values).astype(float), rows=np.bincount(day).astype(float)
    )


def log_loss(labels: NDArray, probabilities: NDArray) -> Floats:
    """-log of the probability given to what happened, in nats, per row [N] -> [N].

    Probabilities are kept 1e-7 away from 0 and 1: one float32 rounded to 1 must not decide.
    """
    p = np.clip(np.asarray(probabilities, np.float64), 1e-7, 1 - 1e-7)
    return -np.where(np.asarray(labels).astype(bool), np.log(p), np.log1p(-p))


def day_weights(days: int, replicates: int, seed: int) -> Floats:
    """`replicates` draws of `days` days with replacement, as counts [R, D]; the same for a seed."""
    if days < 2:
        raise ValueError(f"{days} day(s) say nothing about how days differ: need at least 2")
    draw = np.random.default_rng(seed)
    return draw.multinomial(days, np.full(days, 1 / days), size=replicates).astype(float)


def interval(estimate: float, replicates: Floats, level: float) -> Interval:
    """The percentile interval at `level` (such as 0.95). Raises ValueError for NaN replicates."""
    usable = replicates[np.isfinite(replicates)]
    if len(usable) < 0.99 * len(replicates):
        raise ValueError(
            f"{len(replicates) - len(usable)} of {len(replicates)} draws had one class"
        )
    tail = (1 - level) / 2
    low, high = np.quantile(usable, [tail, 1 - tail])
    return Interval(float(estimate), float(low), float(high), level)


def of(statistic: DailyAuc | DailyMean, weights: Floats, level: float) -> Interval:
    """The interval of one statistic over the drawn `weights` [R, D]."""
    once = np.ones((1, weights.shape[1]))
    return interval(float(statistic.at(once)[0]), statistic.at(weights), level)


def difference(
    one: DailyAuc | DailyMean, other: DailyAuc | DailyMean, weights: Floats, level: float
) -> Interval:
    """The interval of `one - other`, paired: both are seen on the same drawn days."""
    once = np.ones((1, weights.shape[1]))
    estimate = float(one.at(once)[0] - other.at(once)[0])
    return interval(estimate, one.at(weights) - other.at(weights), level)
