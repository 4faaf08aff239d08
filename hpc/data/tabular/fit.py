"""Fit the tabular transform: vocabularies, means and scales of the training split, no more."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import numpy as np

from hpc.data.tabular.columns import FeatureSpec, TargetSpec
from serving.runtime.features import Angle, Category, Feature, Number
from serving.runtime.tabular_transform import Target

ANY_VALUE = {"FP32": float(np.finfo(np.float32).max), "INT32": float(2**31 - 1)}
"""Bound of a number whose feature declares none."""


def fit_features(
    specs: tuple[FeatureSpec, ...], train: Mapping[str, np.ndarray], min_category_count: int
) -> tuple[Feature, ...]:
    """The fitted features, of the raw columns of the training split.

    A category seen less than `min_category_count` times stays out of the vocabulary, so that the
    unknown bucket has rows to learn from. Raises `InvalidInput` for a value that cannot be.
    """
    return tuple(_fit_one(spec, train[spec.name], min_category_count) for spec in specs)


def fit_target(spec: TargetSpec, train: np.ndarray, classes: tuple[str, ...] | None) -> Target:
    """The fitted target, of the training split's values."""
    if spec.kind != "regression":
        return Target(spec.name, spec.kind, spec.served, classes)
    mean, scale = _mean_and_scale(train)
    return Target(spec.name, spec.kind, spec.served, None, mean, scale)


def _fit_one(spec: FeatureSpec, raw: np.ndarray, min_count: int) -> Feature:
    if spec.kind == "category":
        counts = Counter(Category(spec.name, spec.wire, (), spec.nullable).words(raw))
        often = sorted(word for word, count in counts.items() if count >= min_count and word)
        return Category(spec.name, spec.wire, tuple(often), spec.nullable)
    if spec.kind == "angle":
        low = 0.0 if spec.low is None else spec.low
        high = 360.0 if spec.high is None else spec.high
        return Angle(spec.name, spec.wire, spec.nullable, low, high)
    low = -ANY_VALUE[spec.wire] if spec.low is None else spec.low
    high = ANY_VALUE[spec.wire] if spec.high is None else spec.high
    unfitted = Number(spec.name, spec.wire, low, high, 0.0, 1.0, spec.nullable)
    known = unfitted.known(raw)
    mean, scale = _mean_and_scale(known[~np.isnan(known)])
    return Number(spec.name, spec.wire, low, high, mean, scale, spec.nullable)


def _mean_and_scale(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation; a constant has scale 1.

    Six decimals, more where the scale is below 0.001: the last bits of a sum differ between
    machines, and the digest must not.
    """
    if len(values) == 0:
        return 0.0, 1.0
    mean, scale = float(values.mean()), float(values.std())
    # A constant's deviation is rounding noise of the mean's size, not 0.
    if scale <= abs(mean) * 1e-12:
        return round(mean, 6), 1.0
    decimals = 6 if scale >= 1e-3 else 6 - math.floor(math.log10(scale))
    return round(mean, decimals), round(scale, decimals)
