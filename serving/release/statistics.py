"""Statistics of a prediction that can be computed for rows drawn again by group.

A statistic gives its value for each row of `weights` [R, G]: how often each of G groups was drawn
in each of R replicates. Where a closed form over sums per group exists a replicate costs a
matrix product; `ResampledStatistic` writes the drawn rows out and is for every other function.

    AUC(w) = sum_de w_d w_e wins[d, e] / (sum_d w_d positives_d * sum_e w_e negatives_e)

where wins[d, e] counts the pairs of a positive of group d and a negative of group e that the scores
order rightly, ties counting one half (the Mann-Whitney form of the area under the ROC curve,
Hanley and McNeil 1982, https://doi.org/10.1148/radiology.143.1.7063747).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]

MANY = 1_000_000
"""Replicates that a closed form bears."""
PAIRED_GROUPS = 1000
"""Groups up to which AUC is a matrix of pairs [G, G]; beyond it is computed from sorted scores."""


class Statistic(Protocol):
    """A number that depends on how often each group of rows was drawn."""

    most_replicates: ClassVar[int]
    """Replicates at most, so that a gate ends in seconds."""

    def at(self, weights: Floats) -> Floats:
        """The value for each row of `weights` [R, G] -> [R]; NaN where it is not defined."""


@dataclass(frozen=True)
class GroupedMean:
    """A mean over rows: `sums` [G] and `rows` [G]; its square root where `root`."""

    sums: Floats
    rows: Floats
    root: bool = False
    most_replicates: ClassVar[int] = MANY

    def at(self, weights: Floats) -> Floats:
        """The mean for each row of `weights` [R, G] -> [R]."""
        mean = _ratio(weights @ self.sums, weights @ self.rows)
        return np.sqrt(mean) if self.root else mean


@dataclass(frozen=True)
class GroupedAuc:
    """AUC's sums per pair of groups: `wins` [G, G], `positives` [G], `negatives` [G]."""

    wins: Floats
    positives: Floats
    negatives: Floats
    most_replicates: ClassVar[int] = MANY

    def at(self, weights: Floats) -> Floats:
        """AUC for each row of `weights` [R, G] -> [R]; NaN where a class was not drawn at all."""
        won = np.einsum("rd,rd->r", weights @ self.wins, weights)
        return _ratio(won, (weights @ self.positives) * (weights @ self.negatives))


@dataclass(frozen=True)
class RankedAuc:
    """AUC for many groups: each row's `level` (rank of its score, ties equal), class and group."""

    level: Ids
    positive: NDArray[np.bool_]
    group: Ids
    most_replicates: ClassVar[int] = 2000

    def at(self, weights: Floats) -> Floats:
        """AUC for each row of `weights` [R, G] -> [R]; NaN where a class was not drawn at all."""
        return np.array([self._one(row[self.group]) for row in weights])

    def _one(self, weight: Floats) -> float:
        count = int(self.level.max()) + 1
        positive = np.bincount(self.level, weight * self.positive, count)
        negative = np.bincount(self.level, weight * ~self.positive, count)
        won = positive @ (np.cumsum(negative) - negative / 2)
        pairs = positive.sum() * negative.sum()
        return float(won / pairs) if pairs > 0 else float("nan")


@dataclass(frozen=True)
class GroupedF1:
    """F1 from counts per group: true and false positives, false negatives, each [G, K].

    The mean over the K classes that are present (scikit-learn's `macro`); K is 1 for binary.
    """

    true_positives: Floats
    false_positives: Floats
    false_negatives: Floats
    most_replicates: ClassVar[int] = MANY

    def at(self, weights: Floats) -> Floats:
        """F1 for each row of `weights` [R, G] -> [R]."""
        true = 2 * (weights @ self.true_positives)
        total = true + weights @ self.false_positives + weights @ self.false_negatives
        with np.errstate(invalid="ignore", divide="ignore"):
            each = np.where(total > 0, true / total, np.nan)
        if each.shape[1] == 1:
            return np.nan_to_num(each[:, 0])  # nothing positive, drawn or predicted: 0
        present = (total > 0).sum(axis=1)
        return _ratio(np.nansum(each, axis=1), present.astype(float))


@dataclass(frozen=True)
class ResampledStatistic:
    """Any function of target [rows] and prediction [rows, ...], on the rows written out."""

    function: Callable[[np.ndarray, np.ndarray], float]
    target: np.ndarray
    prediction: np.ndarray
    group: Ids
    most_replicates: ClassVar[int] = 300

    def at(self, weights: Floats) -> Floats:
        """The function for each row of `weights` [R, G] -> [R]; NaN where it raises ValueError."""
        return np.array([self._one(row[self.group]) for row in weights])

    def _one(self, times: Floats) -> float:
        rows = np.repeat(np.arange(len(self.target)), times.astype(np.int64))
        try:
            return float(self.function(self.target[rows], self.prediction[rows]))
        except ValueError:  # scikit-learn's own for a draw that lacks a class
            return float("nan")


def grouped_auc(target: NDArray, scores: NDArray, group: Ids) -> GroupedAuc | RankedAuc:
    """AUC of 0/1 `target` [N] and `scores` [N] in groups 0..G-1 [N]; O(G N log N) at most.

    Raises ValueError for scores that are not finite.
    """
    target, scores = np.asarray(target).astype(bool), np.asarray(scores, np.float64)
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} scores are not finite numbers")
    count = int(group.max()) + 1 if len(group) else 0
    if count > PAIRED_GROUPS:
        level = np.unique(scores, return_inverse=True)[1].astype(np.int64)
        return RankedAuc(level, target, group)
    wins = np.zeros((count, count))
    positive, positive_group = scores[target], group[target]
    for number in range(count):
        negative = np.sort(scores[~target & (group == number)])
        below = np.searchsorted(negative, positive, "left")
        upto = np.searchsorted(negative, positive, "right")
        wins[:, number] = np.bincount(positive_group, weights=(below + upto) / 2, minlength=count)
    return GroupedAuc(
        wins=wins,
        positives=np.bincount(group[target], minlength=count).astype(float),
        negatives=np.bincount(group[~target], minlength=count).astype(float),
    )


def grouped_mean(values: NDArray, group: Ids, root: bool = False) -> GroupedMean:
    """The mean of `values` [N] in groups 0..G-1 [N], or its square root.

    Raises ValueError for values that are not finite.
    """
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} values are not finite numbers")
    sums = np.bincount(group, weights=values).astype(float)
    return GroupedMean(sums, np.bincount(group).astype(float), root)


def grouped_f1(target: Ids, predicted: Ids, classes: Ids, group: Ids) -> GroupedF1:
    """F1 of class ids `target` and `predicted`, each [N], for `classes` [K], in groups [N]."""

    def counts(rows: NDArray[np.bool_]) -> Floats:
        return np.bincount(group, rows.astype(float), int(group.max()) + 1).astype(float)

    columns = []
    for one in classes:
        is_it, called_it = target == one, predicted == one
        columns.append((counts(is_it & called_it), counts(~is_it & called_it),
                        counts(is_it & ~called_it)))  # fmt: skip
    true, false, missed = (np.stack(one, axis=1) for one in zip(*columns, strict=True))
    return GroupedF1(true, false, missed)


def number_groups(groups: NDArray | None, rows: int) -> Ids:
    """Group values of any sortable kind [rows] as 0..G-1 [rows]; each row its own for None."""
    if groups is None:
        return np.arange(rows, dtype=np.int64)
    return np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64)


def _ratio(over: Floats, under: Floats) -> Floats:
    return np.divide(over, under, out=np.full(len(over), np.nan), where=under > 0)
