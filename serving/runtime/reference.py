"""Reference statistics for drift: fixed bins per feature, and their shares on the training split.

Bins are disjoint and fixed when the model is made; whoever counts live traffic uses `bin_of` with
the same edges, so that only the shares can differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from .features import Category, Feature
from .flights_transform import FlightsTransform

FORMAT = 1
CONFIDENCE = "_confidence"
MISSING = "missing"
OTHER = "other"
NUMBER_BINS = 10
CATEGORY_BINS = 12
"""The most frequent categories get a bin each; a label set must stay small."""


def fit_reference(
    transform: FlightsTransform,
    train: Mapping[str, np.ndarray],
    outputs: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """Bins and shares of every feature on the training split, and of each of `outputs` in [0, 1].

    {"format", "rows", "features": {name: {"kind", "edges" or "categories", "ratios"}}}, with the
    share of each bin in `ratios`.
    """
    columns = transform.columns(train)
    features = {one.name: _describe(one, columns[one.name]) for one in transform.features}
    for name, values in outputs.items():
        edges = [round(step / NUMBER_BINS, 6) for step in range(1, NUMBER_BINS)]
        features[name] = _with_ratios({"kind": "number", "edges": edges}, np.asarray(values))
    return {"format": FORMAT, "rows": len(next(iter(columns.values()))), "features": features}


def bins(described: Mapping[str, Any]) -> list[str]:
    """Every bin of a feature, in order; a counter is made for each before anything is counted."""
    if described["kind"] == "category":
        return [*described["categories"], OTHER]
    return [*(f"b{index:02d}" for index in range(len(described["edges"]) + 1)), MISSING]


def count(described: Mapping[str, Any], values: np.ndarray) -> dict[str, int]:
    """How many of `values` [batch] fall into each bin of a feature; every bin is there.

    Number bin k holds values from edge k-1 (included) to edge k (left out). NaN is `missing`; so
    is, for a feature with `low` and `high`, what lies outside them, as in the transform.
    """
    counted = dict.fromkeys(bins(described), 0)
    if described["kind"] == "category":
        for word, times in Counter(_word(value) for value in values.tolist()).items():
            counted[word if word in counted else OTHER] += times
        return counted
    numbers = np.asarray(values, dtype=np.float64)
    gone = np.isnan(numbers)
    if "low" in described:
        gone |= ~((numbers >= described["low"]) & (numbers <= described["high"]))
    places = np.searchsorted(described["edges"], numbers[~gone], side="right")
    for place, times in Counter(places.tolist()).items():
        counted[f"b{place:02d}"] += times
    counted[MISSING] += int(gone.sum())
    return counted


def _describe(feature: Feature, raw: np.ndarray) -> dict[str, Any]:
    if isinstance(feature, Category):
        often = Counter(feature.words(raw))
        often.pop("", None)
        ranked = sorted(often, key=lambda word: (-often[word], word))[:CATEGORY_BINS]
        return _with_ratios({"kind": "category", "categories": sorted(ranked)}, raw)
    known = feature.known(raw)
    known = known[~np.isnan(known)]
    shares = np.arange(1, NUMBER_BINS) / NUMBER_BINS
    cuts = np.quantile(known, shares) if len(known) else np.array([])
    edges = sorted({round(float(cut), 6) for cut in cuts})
    described = {"kind": "number", "edges": edges, "low": feature.low, "high": feature.high}
    return _with_ratios(described, raw)


def _with_ratios(described: dict[str, Any], values: np.ndarray) -> dict[str, Any]:
    counted = count(described, values)
    total = max(1, sum(counted.values()))
    ratios = {name: round(times / total, 8) for name, times in counted.items()}
    return {**described, "ratios": ratios}


def _word(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
