"""metrics.jsonl from its first line to its last: the last and the best value of each metric."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from hpc.jobs.run.metric_lines import MetricLine, metric_lines

VALIDATION = "validation_"
STEP_SECONDS = "step_seconds"
STALL_SECONDS = "checkpoint_stall_seconds"
"""Time for which a checkpoint held up the steps; between two steps, so no part of one."""
PROGRESS = re.compile(r"lr|mfu|gradient_norm|peak_\w+|\w+_seconds|\w+_per_second")
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

    Lines of another hand are left out, and are a problem.
    """
    curve = _Points()
    try:
        for line in metric_lines(path):
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

    def add(self, line: MetricLine | None) -> None:
        if line is None:
            self.unusable += 1
            return
        self.step = line.step
        for name, value in line.values.items():
            if value is None:
                continue
            if name == STEP_SECONDS:
                self.step_seconds.append(value)
            elif not PROGRESS.fullmatch(name):
                self._add(name, value)

    def _add(self, name: str, value: float) -> None:
        before = self.metrics.get(name)
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
