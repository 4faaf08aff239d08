"""The labelled examples of a prepared split, as the served model takes them, for every kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True)
class LabelledExamples:
    """One split in memory, every array [rows, ...].

    `inputs` are the served model's: text as objects with "" for a missing one, float32 with NaN.
    `target` is int8 0 or 1 (binary), int64 places in the transform's classes or labels, or float64
    (regression); of an array dataset its own dtype. Rows of equal `group` belong together.
    """

    inputs: Mapping[str, np.ndarray]
    target: np.ndarray
    group: np.ndarray | None


def read_examples(dataset: Path, split: str) -> LabelledExamples:
    """The split `split` of the dataset folder `dataset`, of every kind that has labels.

    Raises ValueError for another kind, OSError where there is no such split.
    """
    transform = json.loads((Path(dataset) / "transform.json").read_text(encoding="utf-8"))
    kind = transform.get("kind")
    if kind not in READERS:
        raise ValueError(
            f"{dataset} is a dataset of kind {kind!r}; labelled examples have: {', '.join(READERS)}"
        )
    return READERS[kind](Path(dataset), split, transform)


def raw_columns(table: pa.Table, names: list[str]) -> dict[str, np.ndarray]:
    """The columns `names` of a prepared table, each [rows]: text as objects with "" for null,
    float32 with NaN for null, int32 as it is."""
    return {name: _raw(table[name]) for name in names}


def _read_tabular(dataset: Path, split: str, transform: Mapping[str, Any]) -> LabelledExamples:
    table = pq.read_table(dataset / f"{split}.parquet")
    target = transform["target"]
    return LabelledExamples(
        raw_columns(table, [one["name"] for one in transform["features"]]),
        _class_ids(table[target["name"]], target["classes"]),
        _group(table, transform["group"]),
    )


def _read_labelled_text(
    dataset: Path, split: str, transform: Mapping[str, Any]
) -> LabelledExamples:
    table = pq.read_table(dataset / f"{split}.parquet")
    return LabelledExamples(
        {"text": _raw(table[transform["text"]])},
        _class_ids(table[transform["label"]], transform["labels"]),
        _group(table, transform["group"]),
    )


def _read_arrays(dataset: Path, split: str, transform: Mapping[str, Any]) -> LabelledExamples:
    def mapped(name: str) -> np.ndarray:
        return np.load(dataset / split / f"{name}.npy", mmap_mode="r")

    targets = [one["name"] for one in transform["targets"]]
    if len(targets) != 1:
        raise ValueError(f"{dataset} has the targets {targets}; labelled examples have one")
    group = transform["group"]
    inputs = {one["name"]: mapped(one["name"]) for one in transform["inputs"]}
    return LabelledExamples(inputs, mapped(targets[0]), mapped(group) if group else None)


READERS: dict[str, Callable[[Path, str, Mapping[str, Any]], LabelledExamples]] = {
    "tabular": _read_tabular,
    "arrays": _read_arrays,
    "labelled-text": _read_labelled_text,
}


def _class_ids(column: pa.ChunkedArray, classes: list[str] | None) -> np.ndarray:
    if classes is None:
        return column.to_numpy()
    places = {name: place for place, name in enumerate(classes)}
    return np.array([places[name] for name in column.to_pylist()], dtype=np.int64)


def _group(table: pa.Table, name: str | None) -> np.ndarray | None:
    return None if name is None else table[name].to_numpy()


def _raw(column: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_string(column.type):
        return np.array([value or "" for value in column.to_pylist()], dtype=object)
    if pa.types.is_floating(column.type):
        return column.fill_null(float("nan")).to_numpy()
    return column.to_numpy()
