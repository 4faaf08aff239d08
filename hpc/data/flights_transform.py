"""Fit the flights transform: vocabularies, means and scales of the training split, no more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from hpc.data.flights_schema import FEATURES, FeatureSpec
from serving.runtime.features import Angle, Category, Feature, Number
from serving.runtime.flights_transform import FlightsTransform


def fit(train: Mapping[str, np.ndarray], min_category_count: int) -> FlightsTransform:
    """Fit on the raw columns of the training split.

    A category seen less than `min_category_count` times stays out of the vocabulary, so that the
    unknown bucket has rows to learn from. Raises `InvalidInput` for a value that cannot be.
    """
    return FlightsTransform(
        tuple(_fit_one(spec, train[spec.name], min_category_count) for spec in FEATURES)
    )


def _fit_one(spec: FeatureSpec, raw: np.ndarray, min_count: int) -> Feature:
    if spec.kind == "category":
        counts = Counter(Category(spec.name, spec.dtype, (), spec.nullable).words(raw))
        often = sorted(word for word, count in counts.items() if count >= min_count and word)
        return Category(spec.name, spec.dtype, tuple(often), spec.nullable)
    if spec.kind == "angle":
        return Angle(spec.name, spec.dtype, spec.nullable, spec.low, spec.high)
    unfitted = Number(spec.name, spec.dtype, spec.low, spec.high, 0.0, 1.0, spec.nullable)
    known = unfitted.known(raw)
    known = known[~np.isnan(known)]
    # Six decimals: the last bits of a sum differ between machines, and the digest must not.
    mean = round(float(known.mean()), 6) if len(known) else 0.0
    scale = round(float(known.std()), 6) if len(known) else 0.0
    return Number(
        spec.name, spec.dtype, spec.low, spec.high, mean, scale if scale > 0 else 1.0, spec.nullable
    )
