"""The quality gate: one metric of the served predictions, against a baseline and fixed thresholds.

Nothing is tuned on the hold-out. A comparison is paired and has an interval by a bootstrap over
the dataset's groups (`serving.release.bootstrap`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from serving.artifact.manifest import GateRecord
from serving.release.baselines import PredictionBaseline
from serving.release.bootstrap import (
    Draws,
    Interval,
    difference_interval,
    estimate,
)
from serving.release.gate import at_least, at_most, holds, reported, unknown
from serving.release.metrics import Metric, named_metric
from serving.release.statistics import number_groups
from serving.release.subject import GateSubject


@dataclass(frozen=True)
class Predicted:
    """Rows with what is predicted for them: `target` and `group` [rows], the others [rows, ...]."""

    target: np.ndarray
    model: np.ndarray
    other: np.ndarray | None
    """The baseline's."""
    group: np.ndarray | None

    def rows(self, where: np.ndarray) -> Predicted:
        """The rows of the mask `where` [rows]."""
        other = None if self.other is None else self.other[where]
        group = None if self.group is None else self.group[where]
        return Predicted(self.target[where], self.model[where], other, group)


@dataclass(frozen=True)
class QualityGate:
    """One metric on one split; for several metrics write several gates."""

    required: bool
    metric: str | Metric
    """auc, log_loss, accuracy, f1, rmse, mae, or a mapping with `_target_` (FunctionMetric)."""
    baseline: PredictionBaseline | None = None
    """Something of `serving.release.baselines` to compare with, or of one's own."""
    rule: Literal["better", "not_worse"] = "not_worse"
    """`better`: the whole interval of the difference is better than the baseline by `margin`.
    `not_worse`: the interval reaches the baseline, or what is worse than it by `margin`."""
    margin: float = 0.0
    """In the metric's unit, whatever its direction."""
    minimum: float | None = None
    """The metric on the whole split, at least."""
    maximum: float | None = None
    """The metric on the whole split, at most."""
    slices: tuple[str, ...] = ()
    """Input columns: the rows of each of their values are measured apart, by the same rule."""
    slice_rows: int = 500
    """Values with fewer rows are left out."""
    slice_required: bool = False
    """True: a slice can stop a release; False: it is only reported."""
    split: str = "holdout"
    """The split of the dataset that nothing was tuned on."""
    output: str | None = None
    """The served tensor that is the prediction, where the dataset does not name it."""
    replicates: int = 2000
    """Draws of whole groups, with replacement; a metric without a closed form takes fewer."""
    level: float = 0.95
    """Share of the draws that an interval holds."""
    seed: int = 2013
    """Of the draws."""

    def __post_init__(self) -> None:
        if isinstance(self.metric, str):
            named_metric(self.metric)
        if self.baseline is None and self.minimum is None and self.maximum is None:
            raise ValueError("baseline: give a baseline, a minimum or a maximum to hold it against")
        if self.margin < 0:
            raise ValueError(f"margin={self.margin}: must not be negative; see rule")
        if self.replicates < 100:
            raise ValueError(f"replicates={self.replicates}: must be at least 100")
        if not 0 < self.level < 1:
            raise ValueError(f"level={self.level}: must be between 0 and 1")
        if self.slice_rows < 1:
            raise ValueError(f"slice_rows={self.slice_rows}: must be at least 1")

    def names(self, name: str, subject: GateSubject) -> tuple[str, ...]:
        compared = self.baseline is not None and self.baseline.applies(subject)
        bounds = [
            f"{name}.{kind}" for kind in ("minimum", "maximum") if getattr(self, kind) is not None
        ]
        columns = [f"{name}.{column}" for column in self.slices] if compared or bounds else []
        return (*((name,) if compared else ()), *bounds, *columns)

    def run(self, name: str, subject: GateSubject) -> Iterator[GateRecord]:
        if not self.names(name, subject):
            return
        examples = subject.examples(self.split)
        model = subject.predictions(self.split, self.output)
        other = None
        if self.baseline is not None and self.baseline.applies(subject):
            baseline = self.baseline
            other = subject.once(
                ("baseline", repr(baseline), self.split, self.output),
                lambda: baseline.predictions(subject, self.split, self.output),
            )
        found = Predicted(examples.target, model, other, examples.group)
        yield from self.measure(name, found)
        for column in self.slices:
            if column not in examples.inputs:
                known = ", ".join(examples.inputs)
                raise ValueError(f"slices: the dataset has no column {column}; it has {known}")
            yield from self.measure_slices(name, column, examples.inputs[column], found)

    def measure(self, name: str, found: Predicted) -> Iterator[GateRecord]:
        """The records of the rows in `found`.

        Raises ValueError for predictions that the metric refuses and fewer than two groups.
        """
        metric = named_metric(self.metric) if isinstance(self.metric, str) else self.metric
        group = number_groups(found.group, len(found.target))
        count = int(group.max()) + 1 if len(group) else 0
        model = metric.statistic(found.target, found.model, group)
        if found.other is not None:
            other = metric.statistic(found.target, found.other, group)
            bound = min(self.replicates, model.most_replicates, other.most_replicates)
            draws = Draws(count, bound, self.seed)
            difference = difference_interval(model, other, draws, self.level)
            values = estimate(model, count), estimate(other, count)
            yield self.compare(name, metric, values, difference)
        value, detail = estimate(model, count), f"{metric.title} of {len(found.target)} rows"
        if self.minimum is not None:
            yield at_least(f"{name}.minimum", value, self.minimum, detail)
        if self.maximum is not None:
            yield at_most(f"{name}.maximum", value, self.maximum, detail)

    def measure_slices(
        self, name: str, column: str, values: np.ndarray, found: Predicted
    ) -> Iterator[GateRecord]:
        """The records of each value of a column [rows] with rows enough, and one of all of them."""
        words = np.array([_word(one) for one in np.asarray(values).reshape(-1)])
        failed, measured = [], 0
        for word, rows in zip(*np.unique(words, return_counts=True), strict=True):
            if rows < self.slice_rows:
                continue
            measured += 1
            place = f"{name}.{column}={word}"
            try:
                records = list(self.measure(place, found.rows(words == word)))
            except ValueError as error:  # a slice of one class, or of one group
                records = [unknown(place, str(error))]
            failed += [one.name for one in records if one.verdict != "pass"]
            yield from (one if self.slice_required else reported(one) for one in records)
        detail = f"{measured} values with at least {self.slice_rows} rows"
        detail += f"; not passed: {', '.join(failed)}" if failed else ""
        total = holds(f"{name}.{column}", not failed, detail)
        yield total if self.slice_required else reported(total)

    def compare(
        self, name: str, metric: Metric, values: tuple[float, float], difference: Interval
    ) -> GateRecord:
        """The record of a metric's `values` (model's, baseline's) and their paired difference."""
        shown = f"{difference.estimate:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
        detail = f"{metric.title} {values[0]:.4f} against {values[1]:.4f}; difference {shown}"
        if self.rule == "better":
            gain = difference.low if metric.higher_is_better else -difference.high
            return at_least(name, gain, self.margin, f"{detail}; its worse end counts")
        if metric.higher_is_better:
            return at_least(name, difference.high, 0.0 - self.margin, detail)
        return at_most(name, difference.low, self.margin, detail)


def _word(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
