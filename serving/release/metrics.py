"""Metrics by name: the statistic of a target and a prediction, and the direction that is better.

A prediction is [rows] (the positive class's probability, or a quantity) or [rows, classes]
(probabilities, or scores whose largest wins); a target is class ids or quantities [rows]. Each
metric agrees with scikit-learn's function of the same name, which its test compares it with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from conf.names import nearest
from conf.plugin import find_target
from serving.release.statistics import (
    Floats,
    Ids,
    ResampledStatistic,
    Statistic,
    grouped_auc,
    grouped_f1,
    grouped_mean,
)

CLIP = 1e-7
"""Probabilities are kept this far from 0 and 1: one float32 rounded to 1 must not decide."""


class Metric(Protocol):
    """A measure of predictions."""

    @property
    def higher_is_better(self) -> bool:
        """True when a larger value is a better prediction."""

    @property
    def title(self) -> str:
        """The name in a report, such as "log loss"."""

    def statistic(self, target: np.ndarray, prediction: np.ndarray, group: Ids) -> Statistic:
        """The measure of `prediction` [rows, ...], to be drawn again by `group` 0..G-1 [rows].

        Raises ValueError for predictions that are not finite or not of the metric's shape.
        """


@dataclass(frozen=True)
class NamedMetric:
    """A metric of Lockgate's own, by the name that a YAML gives."""

    title: str
    higher_is_better: bool
    make: Callable[[np.ndarray, np.ndarray, Ids], Statistic]

    def statistic(self, target: np.ndarray, prediction: np.ndarray, group: Ids) -> Statistic:
        return self.make(target, _finite(prediction), group)


@dataclass(frozen=True)
class FunctionMetric:
    """Any function(target, prediction), such as `sklearn.metrics.balanced_accuracy_score`.

    It returns one number, or an array [rows] of losses per row, whose mean then counts and
    whose bootstrap is quicker.
    """

    function: str
    """Dotted path of the function."""
    higher_is_better: bool
    """True when a larger value is a better prediction."""
    prediction: Literal["as_served", "class"] = "as_served"
    """`class` gives the function class ids [rows] instead of what was served."""

    def __post_init__(self) -> None:
        find_target(self.function, "function")

    @property
    def title(self) -> str:
        return self.function.rpartition(".")[2]

    def statistic(self, target: np.ndarray, prediction: np.ndarray, group: Ids) -> Statistic:
        """Raises ValueError when the function returns neither a number nor one per row."""
        function: Any = find_target(self.function, "function")
        given = classes_of(prediction) if self.prediction == "class" else prediction
        found = np.asarray(function(target, given), np.float64)
        if found.shape == (len(target),):
            return grouped_mean(found, group)
        if found.shape != ():
            raise ValueError(
                f"{self.function} returned shape {list(found.shape)} for {len(target)} rows: "
                "neither one number nor one per row"
            )
        return ResampledStatistic(function, target, given, group)


def named_metric(name: str) -> Metric:
    """The metric called `name`. Raises ValueError with the nearest names."""
    if name not in METRICS:
        raise ValueError(
            f"metric={name}: there is no such metric. {nearest(name, METRICS)}. A function of your "
            "own: metric={_target_: serving.release.metrics.FunctionMetric, function: ..., "
            "higher_is_better: ...}"
        )
    return METRICS[name]


def classes_of(prediction: np.ndarray) -> Ids:
    """The predicted class ids [rows]: of [rows] probabilities at 0.5, of [rows, K] the largest."""
    if prediction.ndim == 1:
        return (prediction >= 0.5).astype(np.int64)
    return prediction.argmax(axis=1).astype(np.int64)


def row_log_loss(target: np.ndarray, prediction: np.ndarray) -> Floats:
    """-log of the probability given to the class that happened, in nats, [rows]."""
    p = np.clip(np.asarray(prediction, np.float64), CLIP, 1 - CLIP)
    if p.ndim == 1:
        return -np.where(np.asarray(target).astype(bool), np.log(p), np.log1p(-p))
    p = p / p.sum(axis=1, keepdims=True)
    return -np.log(np.take_along_axis(p, target.astype(np.int64)[:, None], axis=1)[:, 0])


def _auc(target: np.ndarray, prediction: np.ndarray, group: Ids) -> Statistic:
    """Binary, or the mean of each class against the rest (scikit-learn's `ovr`)."""
    if prediction.ndim == 1 or prediction.shape[1] == 2:
        scores = prediction if prediction.ndim == 1 else prediction[:, 1]
        return grouped_auc(target, scores, group)
    return ResampledStatistic(_one_against_rest, target, prediction, group)


def _one_against_rest(target: np.ndarray, prediction: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score  # a second of import for one metric

    classes = np.arange(prediction.shape[1])
    return float(np.mean([roc_auc_score(target == one, prediction[:, one]) for one in classes]))


def _log_loss(target: np.ndarray, prediction: np.ndarray, group: Ids) -> Statistic:
    return grouped_mean(row_log_loss(target, prediction), group)


def _accuracy(target: np.ndarray, prediction: np.ndarray, group: Ids) -> Statistic:
    return grouped_mean(classes_of(prediction) == target, group)


def _f1(target: np.ndarray, prediction: np.ndarray, group: Ids) -> Statistic:
    """Of the positive class when binary, else the mean over classes."""
    predicted, target = classes_of(prediction), target.astype(np.int64)
    binary = prediction.ndim == 1 or prediction.shape[1] == 2
    count = 2 if binary else prediction.shape[1]
    return grouped_f1(target, predicted, np.arange(count)[1 if binary else 0 :], group)


def _rmse(target: np.ndarray, prediction: np.ndarray, group: Ids) -> Statistic:
    return grouped_mean(_row_mean(_error(target, prediction) ** 2), group, root=True)


def _mae(target: np.ndarray, prediction: np.ndarray, group: Ids) -> Statistic:
    return grouped_mean(_row_mean(np.abs(_error(target, prediction))), group)


def _error(target: np.ndarray, prediction: np.ndarray) -> Floats:
    if target.shape != prediction.shape:
        raise ValueError(
            f"a target of shape {list(target.shape)} has no error against a prediction of "
            f"{list(prediction.shape)}"
        )
    return np.asarray(prediction, np.float64) - np.asarray(target, np.float64)


def _row_mean(values: Floats) -> Floats:
    return values if values.ndim == 1 else values.reshape(len(values), -1).mean(axis=1)


def _finite(prediction: np.ndarray) -> np.ndarray:
    wrong = int((~np.isfinite(prediction)).sum())
    if wrong:
        raise ValueError(f"{wrong} scores are not finite numbers")
    return prediction


METRICS: dict[str, NamedMetric] = {
    "auc": NamedMetric("AUC", True, _auc),
    "log_loss": NamedMetric("log loss", False, _log_loss),
    "accuracy": NamedMetric("accuracy", True, _accuracy),
    "f1": NamedMetric("F1", True, _f1),
    "rmse": NamedMetric("RMSE", False, _rmse),
    "mae": NamedMetric("MAE", False, _mae),
}
