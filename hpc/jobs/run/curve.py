"""metrics.jsonl from its first line to its last: the last and the best value of each metric."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from hpc.jobs.regular_file import open_regular_file

LINE_BYTES = 1 << 16
"""Length of a line; a longer one is none of ours."""
MOST_METRICS = 256
"""Metrics of one run; what a file names beyond them is left out."""
VALIDATION = "validation_"
STEP_SECONDS = "step_seconds"
PROGRESS = re.compile(r"time|step|lr|mfu|gradient_norm|peak_\w+|\w+_seconds|\w+_per_second")
"""Keys of a line that have no best value."""
LOWER_IS_BETTER = re.compile(
    r"(^|_)(loss|error|perplexity|nats|bits|nll|mae|mse|rmse|mape|brier|wer|cer)(_|$)"
)
"""Metrics whose lowest value is the best, by their names; of all others it is the highest."""


@dataclass(frozen=True)
class MetricSummary:
    """The last and the best value of one metric, each with its step."""

    last: float
    last_step: int
    best: float
    best_step: int
    lower_is_better: bool


@dataclass(frozen=True)
class RunCurve:
    """The content of one metrics.jsonl; empty for a run that logged nothing."""

    step: int = 0
    """Last step logged."""
    metrics: Mapping[str, MetricSummary] = field(default_factory=dict)
    """In the order in which they were first logged."""
    evaluations: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """Metrics of the validation split by step."""
    step_seconds: float | None = None
    """Median wall time of a step."""
    problem: str | None = None
    """The reason, in a sentence, why the file or a part of it could not be used."""

    @property
    def main_metric(self) -> str | None:
        """The first validation metric that the task gives, else the first of all."""
        names = [*(name for name in self.metrics if name.startswith(VALIDATION)), *self.metrics]
        return names[0] if names else None


def read_curve(path: Path) -> RunCurve:
    """The curve in `path`; raises nothing for what stands there.

    A last line without its end is being written, or its job was killed: no problem.
    """
    curve = _Points()
    try:
        with open_regular_file(path) as file:
            while line := file.readline(LINE_BYTES):
                curve.add(line)
    except FileNotFoundError:
        return RunCurve()
    except OSError as error:
        return RunCurve(problem=f"{path.name} cannot be read: {error.strerror}")
    return curve.summary(path.name)


class _Points:
    """The part of a curve that is read already."""

    def __init__(self) -> None:
        self.step = 0
        self.metrics: dict[str, MetricSummary] = {}
        self.evaluations: dict[int, dict[str, float]] = {}
        self.step_seconds: list[float] = []
        self.unusable = 0

    def add(self, line: bytes) -> None:
        content = _object(line)
        step = _finite(content.get("step")) if content else None
        if content is None or step is None:
            self.unusable += line.endswith(b"\n")
            return
        self.step = int(step)
        for name, given in content.items():
            value = _finite(given)
            if value is None:
                continue
            if name == STEP_SECONDS:
                self.step_seconds.append(value)
            elif not PROGRESS.fullmatch(name):
                self._add(name, value)

    def _add(self, name: str, value: float) -> None:
        before = self.metrics.get(name)
        if before is None and len(self.metrics) == MOST_METRICS:
            return
        lower = before.lower_is_better if before else bool(LOWER_IS_BETTER.search(name))
        best, best_step = (before.best, before.best_step) if before else (value, self.step)
        if (value < best) if lower else (value > best):
            best, best_step = value, self.step
        self.metrics[name] = MetricSummary(value, self.step, best, best_step, lower)
        if name.startswith(VALIDATION):
            self.evaluations.setdefault(self.step, {})[name] = value

    def summary(self, name: str) -> RunCurve:
        problem = f"{name}: {self.unusable} lines are none of a run's" if self.unusable else None
        seconds = median(self.step_seconds) if self.step_seconds else None
        return RunCurve(self.step, self.metrics, self.evaluations, seconds, problem)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _finite(value: object) -> float | None:
    """`value` as a number; None for anything that is none, and for what JSON writes as NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # JSON's integers have no end
        return None
    return number if math.isfinite(number) else None
