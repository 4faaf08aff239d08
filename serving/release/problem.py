"""The learning problem of a dataset: what its target is, and the served output that predicts it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

Kind = Literal["binary", "multiclass", "regression"]


@dataclass(frozen=True)
class LearningProblem:
    """The kind of target, the served output that predicts it, and the classes' names in order.

    `output` is None where the dataset does not name one; `classes` where it has none or does not
    name them.
    """

    kind: Kind
    output: str | None
    classes: tuple[str, ...] | None

    def measured(self, target: np.ndarray) -> np.ndarray:
        """`target` [rows, ...] as it is measured: quantities as float64, classes as int64 ids."""
        return np.asarray(target, np.float64 if self.kind == "regression" else np.int64)


def read_problem(dataset: Path) -> LearningProblem:
    """The problem that `transform.json` of a prepared dataset describes.

    Raises ValueError for a kind of dataset without a target, OSError when there is no such file.
    """
    content = json.loads((Path(dataset) / "transform.json").read_text(encoding="utf-8"))
    kind = content.get("kind")
    if kind not in _READERS:
        raise ValueError(
            f"{dataset} is a dataset of kind {kind!r}, which has no target to measure quality "
            f"with; these have: {', '.join(_READERS)}"
        )
    return _READERS[kind](content)


def _tabular(content: Mapping[str, Any]) -> LearningProblem:
    target = content["target"]
    output = "probabilities" if target["kind"] == "multiclass" else target["output"]
    classes = target.get("classes")
    return LearningProblem(target["kind"], output, None if classes is None else tuple(classes))


def _labelled_text(content: Mapping[str, Any]) -> LearningProblem:
    return LearningProblem("multiclass", "probabilities", tuple(map(str, content["labels"])))


def _arrays(content: Mapping[str, Any]) -> LearningProblem:
    """Whole numbers are classes, anything else a quantity; the gate names the output."""
    whole = content["targets"][0]["dtype"].startswith(
        ("INT", "UINT", "BOOL", "int", "uint", "bool")
    )
    return LearningProblem("multiclass" if whole else "regression", None, None)


_READERS = {"tabular": _tabular, "labelled-text": _labelled_text, "arrays": _arrays}
