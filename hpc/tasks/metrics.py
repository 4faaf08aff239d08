"""Validation metrics of labels against served outputs, by scikit-learn's definitions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

CERTAIN = 1e-7
"""Chances are kept this far from 0 and 1: fp32 reaches both, and their log loss is infinite."""


def binary_metrics(chances: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """`auc`, `log_loss` (nats), `base_rate`, and `base_log_loss` of always forecasting it.

    `chances` [rows] of a 1, `target` [rows] of 0 and 1. Raises ValueError without both.
    """
    from sklearn.metrics import log_loss, roc_auc_score

    base = float(target.mean())
    if base in (0.0, 1.0):
        raise ValueError(f"every target of the split is {base:g}; AUC needs both 0 and 1")
    certain = np.clip(chances, CERTAIN, 1 - CERTAIN)
    return {
        "auc": float(roc_auc_score(target, chances)),
        "log_loss": float(log_loss(target, certain, labels=[0, 1])),
        "base_rate": base,
        "base_log_loss": float(log_loss(target, np.full(len(target), base), labels=[0, 1])),
    }


def multiclass_metrics(chances: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """`accuracy`, `log_loss` (nats), and `base_accuracy` of always forecasting the commonest class.

    `chances` [rows, K], `target` [rows] of places in the K classes.
    """
    from sklearn.metrics import log_loss

    classes = chances.shape[1]
    certain = np.clip(chances, CERTAIN, 1.0)
    certain /= certain.sum(axis=1, keepdims=True)
    return {
        "accuracy": accuracy(chances, target),
        "log_loss": float(log_loss(target, certain, labels=range(classes))),
        "base_accuracy": float(np.bincount(target, minlength=classes).max() / len(target)),
    }


def regression_metrics(values: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """`rmse` and `mae` in the target's unit, `r2`, and `base_rmse` of always forecasting the mean.

    `values` and `target` [rows].
    """
    from sklearn.metrics import r2_score

    return {
        "rmse": root_mean_squared_error(values, target),
        "mae": mean_absolute_error(values, target),
        "r2": float(r2_score(target, values)),
        "base_rmse": float(np.std(target)),
    }


def accuracy(output: np.ndarray, target: np.ndarray) -> float:
    """Share of rows whose largest of `output` [rows, K] is at `target` [rows]."""
    return float((output.argmax(axis=1) == target).mean())


def macro_f1(output: np.ndarray, target: np.ndarray) -> float:
    """F1 of each class, averaged; `output` [rows, K], `target` [rows]."""
    from sklearn.metrics import f1_score

    return float(f1_score(target, output.argmax(axis=1), average="macro"))


def root_mean_squared_error(values: np.ndarray, target: np.ndarray) -> float:
    """Of arrays of one size, in the target's unit."""
    return float(np.sqrt(np.mean(np.square(values.reshape(-1) - target.reshape(-1)))))


def mean_absolute_error(values: np.ndarray, target: np.ndarray) -> float:
    """Of arrays of one size, in the target's unit."""
    return float(np.mean(np.abs(values.reshape(-1) - target.reshape(-1))))


BY_NAME: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": accuracy,
    "f1": macro_f1,
    "rmse": root_mean_squared_error,
    "mae": mean_absolute_error,
}
"""Metrics of a model's first output against the first target, as `task.metrics` names them."""
