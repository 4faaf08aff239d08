"""Baselines that a candidate is measured against, each named by `_target_` in a gate's YAML.

A `PredictionBaseline` predicts a split for the quality gate; a `CompressionBaseline` gives bits per
byte of a text for the compression gate. Whatever is fitted is fitted on the training split, with
scikit-learn's defaults: what anybody would try first, and nobody has tuned.
"""

from __future__ import annotations

import gzip
import lzma
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from serving.artifact.manifest import Manifest
from serving.release.bits import HeldOutText, held_out_bytes, served_code_length
from serving.release.design_matrix import design_matrices
from serving.release.subject import GateSubject

TRAIN = "train"


class PredictionBaseline(Protocol):
    """Something that predicts a split's target."""

    def applies(self, subject: GateSubject) -> bool:
        """True when there is something to compare with; costs nothing."""

    def predictions(self, subject: GateSubject, split: str, output: str | None) -> np.ndarray:
        """A prediction for each row of `split`: float64 [rows] or [rows, classes]."""


class CompressionBaseline(Protocol):
    """Something that has a code length for a text."""

    def applies(self, subject: GateSubject) -> bool:
        """True when there is something to compare with; costs nothing."""

    def bits_per_byte(self, subject: GateSubject, text: HeldOutText) -> float:
        """Bits that it needs for a byte of `text`."""


class _Always:
    """Baselines that need nothing but the dataset."""

    def applies(self, subject: GateSubject) -> bool:
        return True


@dataclass(frozen=True)
class ConstantBaseline(_Always):
    """The same prediction for every row: the training split's share of each class, or its mean."""

    of: Literal["mean", "median"] = "mean"
    """For quantities: the constant that is best in squares (mean) or in absolute error (median)."""

    def predictions(self, subject: GateSubject, split: str, output: str | None) -> np.ndarray:
        target, rows = subject.examples(TRAIN).target, len(subject.examples(split).target)
        kind = subject.problem().kind
        if kind == "multiclass":
            count = _class_count(subject)
            return np.tile(np.bincount(target, minlength=count) / len(target), (rows, 1))
        middle = np.median(target, axis=0) if self.of == "median" else np.mean(target, axis=0)
        return np.repeat(np.asarray(middle, np.float64)[None], rows, axis=0)


@dataclass(frozen=True)
class LogisticRegressionBaseline(_Always):
    """A logistic regression on the design matrix, for classes."""

    def predictions(self, subject: GateSubject, split: str, output: str | None) -> np.ndarray:
        """Raises ValueError when the target is a quantity."""
        from sklearn.linear_model import LogisticRegression  # a second of import for one gate

        problem, train = subject.problem(), subject.examples(TRAIN)
        if problem.kind == "regression":
            raise ValueError("a logistic regression predicts classes; the target is a quantity")
        fitted, rows = design_matrices(subject.dataset(), train, subject.examples(split))
        solver = "newton-cholesky" if problem.kind == "binary" else "lbfgs"
        model = LogisticRegression(solver=solver, max_iter=1000).fit(fitted, train.target)
        found = np.zeros((rows.shape[0], 2 if problem.kind == "binary" else _class_count(subject)))
        found[:, model.classes_] = model.predict_proba(rows)
        return found[:, 1] if problem.kind == "binary" else found


@dataclass(frozen=True)
class LinearRegressionBaseline(_Always):
    """Ordinary least squares on the design matrix, for quantities."""

    def predictions(self, subject: GateSubject, split: str, output: str | None) -> np.ndarray:
        """Raises ValueError when the target is classes."""
        from sklearn.linear_model import LinearRegression

        if subject.problem().kind != "regression":
            raise ValueError("a linear regression predicts quantities; the target is classes")
        train = subject.examples(TRAIN)
        fitted, rows = design_matrices(subject.dataset(), train, subject.examples(split))
        return np.asarray(LinearRegression().fit(fitted, train.target).predict(rows), np.float64)


@dataclass(frozen=True)
class FileBaseline(_Always):
    """Predictions that somebody made before, one row for each of the split's, in its order."""

    path: Path
    """`.npy` [rows] or [rows, classes], or a `.parquet` or `.csv` with `columns`."""
    columns: tuple[str, ...] = ()
    """Of the table: one for a probability or quantity, else one per class; none takes all."""

    def predictions(self, subject: GateSubject, split: str, output: str | None) -> np.ndarray:
        """Raises ValueError for another number of rows or kind of file, OSError."""
        if self.path.suffix not in _TABLES:
            raise ValueError(f"{self.path}: predictions are read from {', '.join(_TABLES)}")
        found = _TABLES[self.path.suffix](self.path, list(self.columns))
        rows = len(subject.examples(split).target)
        if len(found) != rows:
            raise ValueError(f"{self.path} has {len(found)} rows; the split {split} has {rows}")
        return np.asarray(found, np.float64)


@dataclass(frozen=True)
class ProductionBaseline:
    """The version in production, served beside the candidate; with none there is no gate."""

    record: str = ""
    """The gate record of a release that holds its bits per byte. Production's own manifest is then
    believed, where it was judged on the same dataset; it is signed. Empty: always measured."""

    def applies(self, subject: GateSubject) -> bool:
        return subject.production is not None

    def predictions(self, subject: GateSubject, split: str, output: str | None) -> np.ndarray:
        return subject.predictions(split, output, of_production=True)

    def bits_per_byte(self, subject: GateSubject, text: HeldOutText) -> float:
        """As recorded at production's own release, else measured now."""
        package, wanted = subject.production, subject.staged.candidate.lineage.dataset.digest
        found = recorded(package.manifest, self.record, wanted) if package else None
        if found is not None:
            return found
        return served_code_length(subject, text, of_production=True).bits_per_byte


@dataclass(frozen=True)
class GzipBaseline(_Always):
    """`gzip -9` of the very same bytes."""

    level: int = 9

    def bits_per_byte(self, subject: GateSubject, text: HeldOutText) -> float:
        content = held_out_bytes(subject, text)
        return 8 * len(gzip.compress(content, self.level, mtime=0)) / len(content)


@dataclass(frozen=True)
class XzBaseline(_Always):
    """`xz -9e` of the very same bytes."""

    preset: int = 9

    def bits_per_byte(self, subject: GateSubject, text: HeldOutText) -> float:
        content = held_out_bytes(subject, text)
        preset = self.preset | lzma.PRESET_EXTREME
        return 8 * len(lzma.compress(content, preset=preset)) / len(content)


def recorded(manifest: Manifest, record: str, dataset_digest: str) -> float | None:
    """The value that a released version's gate `record` measured on the same dataset.

    None when it was judged on another dataset, or has no such record.
    """
    if manifest.lineage.dataset.digest != dataset_digest:
        return None
    return next((one.value for one in manifest.gates if one.name == record), None)


def _class_count(subject: GateSubject) -> int:
    named = subject.problem().classes
    return len(named) if named else int(subject.examples(TRAIN).target.max()) + 1


def _npy(path: Path, columns: list[str]) -> np.ndarray:
    return np.load(path, allow_pickle=False)


def _parquet(path: Path, columns: list[str]) -> np.ndarray:
    import pyarrow.parquet as pq

    return _columns(pq.read_table(path, columns=columns or None))


def _csv(path: Path, columns: list[str]) -> np.ndarray:
    from pyarrow import csv

    table = csv.read_csv(path)
    return _columns(table.select(columns) if columns else table)


def _columns(table: Any) -> np.ndarray:
    found = np.stack([column.to_numpy() for column in table.columns], axis=1)
    return found[:, 0] if found.shape[1] == 1 else found


_TABLES = {".npy": _npy, ".parquet": _parquet, ".csv": _csv}
