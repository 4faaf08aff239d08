"""Reference statistics for drift: fixed bins per feature, and their shares on the training split.

Bins are disjoint and fixed when the model is made; live traffic is counted by `count` with the same
edges, so that only the shares can differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from .features import Category, Feature
from .tabular_transform import TabularTransform

FORMAT = 1
CONFIDENCE = "_confidence"
MISSING = "missing"
OTHER = "other"
NUMBER_BINS = 10
CATEGORY_BINS = 12
"""The most frequent categories get a bin each; a label set must stay small."""


def fit_reference(
    transform: TabularTransform,
    train: Mapping[str, np.ndarray],
    outputs: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """Bins and shares of every feature on the training split, and of each of `outputs`.

    {"format", "rows", "features": {name: {"kind", "edges" or "categories", "ratios"}}}, with the
    share of each bin in `ratios`.
    """
    columns = transform.columns(train)
    features = {one.name: _feature_bins(one, columns[one.name]) for one in transform.features}
    return _reference(len(next(iter(columns.values()))), {**features, **_output_bins(outputs)})


def output_reference(outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Bins and shares of each of `outputs` [rows] on the training split, where the inputs are
    tensors or texts that have no bins. Format as of `fit_reference`."""
    return _reference(len(next(iter(outputs.values()))), _output_bins(outputs))


def token_reference(tokens: np.ndarray, vocabulary: int) -> dict[str, Any]:
    """Histogram of the training split's token ids [rows] in about ten bins of equal share.

    `vocabulary` is the number of ids. Format as of `fit_reference`, with the one feature `token`.
    """
    counts = np.bincount(tokens, minlength=vocabulary)
    cuts = np.searchsorted(
        np.cumsum(counts) / counts.sum(), np.arange(1, NUMBER_BINS) / NUMBER_BINS
    )
    described = {"kind": "number", "edges": sorted({int(cut) for cut in cuts if cut > 0})}
    return _reference(len(tokens), {"token": _with_ratios(described, tokens)})


def bins(described: Mapping[str, Any]) -> list[str]:
    """Every bin of a feature, in order; a counter is made for each before anything is counted."""
    if described["kind"] == "category":
        return [*described["categories"], OTHER]
    return [*(f"b{index:02d}" for index in range(len(described["edges"]) + 1)), MISSING]


def count(described: Mapping[str, Any], values: np.ndarray) -> dict[str, int]:
    """The count of `values` [batch] in each bin of a feature; every bin is there.

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


def _reference(rows: int, features: dict[str, Any]) -> dict[str, Any]:
    return {"format": FORMAT, "rows": rows, "features": features}


def _output_bins(outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {name: _one_output(np.asarray(values).reshape(-1)) for name, values in outputs.items()}


def _one_output(values: np.ndarray) -> dict[str, Any]:
    """Labels by their frequency, chances (all in [0, 1]) by tenths, other numbers by quantiles."""
    if values.dtype.kind in "OSU":
        words = Counter(_word(value) for value in values.tolist())
        return _with_ratios({"kind": "category", "categories": _commonest(words)}, values)
    if ((values >= 0) & (values <= 1)).all():
        edges = [round(step / NUMBER_BINS, 6) for step in range(1, NUMBER_BINS)]
    else:
        edges = _quantiles(values[np.isfinite(values)])
    return _with_ratios({"kind": "number", "edges": edges}, values)


def _feature_bins(feature: Feature, raw: np.ndarray) -> dict[str, Any]:
    if isinstance(feature, Category):
        often = Counter(feature.words(raw))
        often.pop("", None)
        return _with_ratios({"kind": "category", "categories": _commonest(often)}, raw)
    known = feature.known(raw)
    edges = _quantiles(known[~np.isnan(known)])
    described = {"kind": "number", "edges": edges, "low": feature.low, "high": feature.high}
    return _with_ratios(described, raw)


def _commonest(words: Counter[str]) -> list[str]:
    return sorted(sorted(words, key=lambda word: (-words[word], word))[:CATEGORY_BINS])


def _quantiles(values: np.ndarray) -> list[float]:
    """The edges of `NUMBER_BINS` bins of about equal share."""
    shares = np.arange(1, NUMBER_BINS) / NUMBER_BINS
    cuts = np.quantile(values, shares) if len(values) else np.array([])
    return sorted({round(float(cut), 6) for cut in cuts})


def _with_ratios(described: dict[str, Any], values: np.ndarray) -> dict[str, Any]:
    counted = count(described, values)
    total = max(1, sum(counted.values()))
    ratios = {name: round(times / total, 8) for name, times in counted.items()}
    return {**described, "ratios": ratios}


def _word(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
