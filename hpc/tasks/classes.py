"""Golden answers of classifiers: a label that is a close call is not held against anybody."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

CLOSE = 1e-3
"""Chances: closer than this, another CPU could find the other class the likelier."""


def without_close_calls(answer: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`answer` without `label` where two of any row's `probabilities` [batch, K] nearly tie."""
    kept = dict(answer)
    if "label" in kept and "probabilities" in kept:
        two = np.sort(kept["probabilities"], axis=1)[:, -2:]
        if two.shape[1] == 2 and (two[:, 1] - two[:, 0] < CLOSE).any():
            del kept["label"]
    return kept
