"""The flights gates: is the served package clearly better than the base rate, and not worse than
a logistic regression or the version in production?

Scores come through the served package, in batches over gRPC: what is judged is what will run.
Nothing is tuned on the hold-out. Every comparison is paired and has an interval over whole days.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from serving.artifact.manifest import GateRecord
from serving.artifact.table import read_split
from serving.artifact.tensors import TensorSpec
from serving.release import bootstrap
from serving.release.bootstrap import DailyAuc, DailyMean, Interval
from serving.release.gate import at_least, at_most
from serving.runtime import flights_transform
from serving.triton.grpc_client import ModelClient

OUTPUT = "late_probability"


@dataclass(frozen=True)
class BaseRateGate:
    """`conf/gates/flights.yaml: base_rate`."""

    required: bool
    min_auc_gain: float


@dataclass(frozen=True)
class NotWorseGate:
    """`logistic_regression` and `production`: margins by which the whole interval may be worse."""

    required: bool
    auc_margin: float
    log_loss_margin: float


@dataclass(frozen=True)
class Holdout:
    """How the hold-out is read, sent and drawn again."""

    split: str
    in_flight: int
    replicates: int
    level: float
    seed: int


@dataclass(frozen=True)
class Split:
    """A prepared split: raw columns, each [rows]; `late` 0/1 [rows]; day numbers 0..D-1 [rows]."""

    columns: Mapping[str, np.ndarray]
    late: np.ndarray
    day: np.ndarray


@dataclass(frozen=True)
class Quality:
    """AUC and log loss of one set of scores, ready to be drawn again by days."""

    auc: DailyAuc
    log_loss: DailyMean


def load_split(dataset: Path, split: str) -> Split:
    """One split of a prepared dataset. Raises OSError when it is not there."""
    columns, late, day = read_split(dataset / f"{split}.parquet")
    return Split(columns, late, bootstrap.number_days(day))


def quality(split: Split, probabilities: np.ndarray) -> Quality:
    """What `probabilities` [rows] of lateness are worth on `split`."""
    return Quality(
        bootstrap.daily_auc(split.late, probabilities, split.day),
        bootstrap.daily_mean(bootstrap.log_loss(split.late, probabilities), split.day),
    )


def served(
    endpoint: ModelClient, inputs: Sequence[TensorSpec], split: Split, in_flight: int
) -> np.ndarray:
    """late_probability [rows] of every row of `split`, asked of a served package."""
    missing = [tensor.name for tensor in inputs if tensor.name not in split.columns]
    if missing:
        raise ValueError(f"the dataset has no column for the input {', '.join(missing)}")
    rows, batch = len(split.late), endpoint.max_batch() or 1
    columns = {tensor.name: _as_sent(split.columns[tensor.name]) for tensor in inputs}

    def requests() -> Iterator[dict[str, np.ndarray]]:
        for at in range(0, rows, batch):
            yield {name: column[at : at + batch] for name, column in columns.items()}

    answers = endpoint.infer_all(requests(), in_flight)
    return np.concatenate([answer[OUTPUT].reshape(-1) for answer in answers]).astype(np.float64)


def logistic_regression(dataset: Path, train: Split, holdout: Split) -> np.ndarray:
    """Late probabilities [rows] of `holdout` from a logistic regression fitted on `train`.

    On the package's own transform with categories one-hot and scikit-learn's defaults: a baseline
    that anybody would try first, and that nobody has tuned.
    """
    from sklearn.linear_model import LogisticRegression  # a second of import for one gate

    transform = flights_transform.load(dataset / "transform.json")
    model = LogisticRegression(solver="newton-cholesky")
    model.fit(_plain(transform, train.columns), train.late)
    return model.predict_proba(_plain(transform, holdout.columns))[:, 1]


def against_base_rate(
    gate: BaseRateGate, holdout: Holdout, split: Split, model: Quality, base_rate: float
) -> Iterator[GateRecord]:
    """Clearly better: the lower end of the interval beats a constant `base_rate` forecast."""
    weights = _weights(holdout, split)
    auc = bootstrap.of(model.auc, weights, holdout.level)
    detail = f"AUC {auc} against 0.5; the interval's lower end counts"
    yield at_least("base_rate.auc", auc.low - 0.5, gate.min_auc_gain, detail)
    constant = quality(split, np.full(len(split.late), base_rate)).log_loss
    gain = bootstrap.difference(constant, model.log_loss, weights, holdout.level)
    detail = f"log loss {_value(model.log_loss)} against {_value(constant)}; gain {gain}"
    yield at_least("base_rate.log_loss", gain.low, 0.0, detail)


def not_worse(
    name: str, gate: NotWorseGate, holdout: Holdout, split: Split, model: Quality, other: Quality
) -> Iterator[GateRecord]:
    """Not worse beyond the interval: fails when the whole interval of the difference is worse."""
    weights = _weights(holdout, split)
    auc = bootstrap.difference(model.auc, other.auc, weights, holdout.level)
    detail = f"AUC {_value(model.auc)} against {_value(other.auc)}; difference {_signed(auc)}"
    yield at_least(f"{name}.auc", auc.high, 0.0 - gate.auc_margin, detail)
    loss = bootstrap.difference(model.log_loss, other.log_loss, weights, holdout.level)
    detail = f"log loss {_value(model.log_loss)} against {_value(other.log_loss)}"
    detail += f"; difference {_signed(loss)}"
    yield at_most(f"{name}.log_loss", loss.low, gate.log_loss_margin, detail)


def _plain(transform: flights_transform.FlightsTransform, columns: Mapping[str, np.ndarray]) -> Any:
    """csr [rows, one-hot categories + numbers]; id 0 (unknown) has a column as any other."""
    from scipy import sparse

    encoded = transform.encode(columns)
    sizes = np.array(transform.vocabulary_sizes)
    ids = encoded["categories"] + np.concatenate([[0], np.cumsum(sizes)[:-1]])
    rows, count = ids.shape
    indices, starts = ids.ravel(), np.arange(0, rows * count + 1, count)
    shape = (rows, int(sizes.sum()))
    one_hot = sparse.csr_matrix((np.ones(rows * count, np.float32), indices, starts), shape)
    return sparse.hstack([one_hot, encoded["numbers"]], format="csr")


def _as_sent(column: np.ndarray) -> np.ndarray:
    """[rows] as the API takes it: [rows, 1], text as bytes."""
    if column.dtype == object:
        column = np.array([text.encode() for text in column], dtype=object)
    return column.reshape(-1, 1)


def _weights(holdout: Holdout, split: Split) -> np.ndarray:
    return bootstrap.day_weights(int(split.day.max()) + 1, holdout.replicates, holdout.seed)


def _value(statistic: DailyAuc | DailyMean) -> str:
    return f"{once(statistic):.4f}"


def once(statistic: DailyAuc | DailyMean) -> float:
    """The statistic on the data as it is."""
    days = statistic.positives if isinstance(statistic, DailyAuc) else statistic.rows
    return float(statistic.at(np.ones((1, len(days))))[0])


def _signed(found: Interval) -> str:
    return f"{found.estimate:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
