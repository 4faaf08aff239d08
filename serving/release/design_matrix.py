"""The design matrix of a dataset's rows, for linear baselines: numbers [rows, columns].

Made as anybody would at first: categories one-hot, arrays flattened, text as TF-IDF of its words,
nothing tuned.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from serving.artifact.splits import LabelledExamples
from serving.runtime.tabular_transform import load_transform


def design_matrices(
    dataset: Path, train: LabelledExamples, other: LabelledExamples
) -> tuple[Any, Any]:
    """The rows of `train` and of `other`, each [rows, columns], dense or scipy csr.

    Whatever is fitted is fitted on `train`. Raises ValueError for a kind of dataset without one.
    """
    kind = json.loads((dataset / "transform.json").read_text(encoding="utf-8")).get("kind")
    if kind not in _MATRICES:
        known = ", ".join(_MATRICES)
        raise ValueError(f"no linear baseline is known for a dataset of kind {kind!r}: {known}")
    return _MATRICES[kind](dataset, train, other)


def _tabular(dataset: Path, *splits: LabelledExamples) -> tuple[Any, ...]:
    """The package's own transform, with id 0 (unknown) a column as any other."""
    from scipy import sparse

    transform = load_transform(dataset / "transform.json")
    sizes = np.array(transform.vocabulary_sizes, dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]) if len(sizes) else sizes
    matrices = []
    for split in splits:
        encoded = transform.encode(split.inputs)
        ids = encoded["categories"] + starts
        rows, count = ids.shape
        pointers = np.arange(0, rows * count + 1, count) if count else np.zeros(rows + 1, np.int64)
        content = (np.ones(rows * count, np.float32), ids.ravel(), pointers)
        one_hot = sparse.csr_matrix(content, (rows, int(sizes.sum())))
        numbers = sparse.csr_matrix(encoded["numbers"])
        matrices.append(sparse.hstack([one_hot, numbers], format="csr"))
    return tuple(matrices)


def _arrays(dataset: Path, *splits: LabelledExamples) -> tuple[Any, ...]:
    """Every input array, one row after another, on the scale of the training split."""
    flat = [
        np.concatenate(
            [np.asarray(one, np.float32).reshape(len(one), -1) for one in split.inputs.values()],
            axis=1,
        )
        for split in splits
    ]
    mean, scale = flat[0].mean(axis=0), flat[0].std(axis=0)
    return tuple((one - mean) / np.where(scale > 0, scale, 1) for one in flat)


def _labelled_text(dataset: Path, *splits: LabelledExamples) -> tuple[Any, ...]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    def words(split: LabelledExamples) -> list[str]:
        (column,) = split.inputs.values()
        return [one.decode() if isinstance(one, bytes) else str(one) for one in column.ravel()]

    vectorizer = TfidfVectorizer().fit(words(splits[0]))
    return tuple(vectorizer.transform(words(split)) for split in splits)


_MATRICES: dict[str, Callable[..., tuple[Any, ...]]] = {
    "tabular": _tabular,
    "arrays": _arrays,
    "labelled-text": _labelled_text,
}
