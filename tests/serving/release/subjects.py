"""Subjects of gates without a server: what it would have answered is put in beforehand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from serving.artifact.splits import LabelledExamples
from serving.release.problem import LearningProblem
from serving.release.subject import GateSubject


def bare_subject(**changes: Any) -> GateSubject:
    """A subject of nothing: whatever a gate reaches for beyond `changes` fails its test."""

    def not_here() -> Any:
        raise AssertionError("this gate needs no server and no dataset")

    content: dict[str, Any] = {
        "staged": None, "production": None, "allow_breaking": False, "serving_env": Path(),
        "in_flight": 1, "start_servers": not_here, "find_dataset": not_here,
    }  # fmt: skip
    return GateSubject(**{**content, **changes})


def predicted_subject(
    kind: str,
    target: np.ndarray,
    prediction: np.ndarray,
    *,
    group: np.ndarray | None = None,
    columns: Mapping[str, np.ndarray] | None = None,
    train_target: np.ndarray | None = None,
    production: np.ndarray | None = None,
    **changes: Any,
) -> GateSubject:
    """A subject whose served package answers `prediction` for the hold-out."""
    given = columns or {"row": np.arange(len(target), dtype=np.float32)}
    if production is not None:
        changes = {"production": "a version", **changes}
    subject = bare_subject(**changes)
    train = target if train_target is None else train_target
    seeded = {
        "problem": LearningProblem(kind, "output", None),  # type: ignore[arg-type]
        ("examples", "holdout"): LabelledExamples(given, target, group),
        ("examples", "train"): LabelledExamples(given, train, group),
        ("predictions", "holdout", None, False): prediction,
        ("predictions", "holdout", None, True): production,
    }
    for key, value in seeded.items():
        subject.once(key, lambda value=value: value)
    return subject
