"""The outputs of a model of several classes: probabilities, and the likeliest class as a label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def class_outputs(probabilities: np.ndarray, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """[batch, K] -> `probabilities` float32 [batch, K] and `label` BYTES [batch, 1]."""
    names = np.array([name.encode() for name in classes], dtype=object)
    chances = np.ascontiguousarray(probabilities, dtype=np.float32)
    return {"probabilities": chances, "label": names[chances.argmax(axis=1)].reshape(-1, 1)}


def softmax(logits: np.ndarray) -> np.ndarray:
    """float32 [batch, K] of logits [batch, K]."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)
