"""The target column of the prepared splits, and the classes it has."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from hpc.data.classes import class_names
from hpc.data.refusal import DataRefused
from hpc.data.split import LATER
from hpc.data.tables import typed_column, value_text
from hpc.data.tabular.columns import TargetSpec

TRUTHS = {"0": 0, "1": 1, "false": 0, "true": 1}


def target_column(rows: pa.Table, place: str, spec: TargetSpec) -> pa.ChunkedArray:
    """The target of each row: int8 0 or 1, float64, or text of a class.

    Raises `DataRefused` for a missing value and for one that is not of the target's kind.
    """
    if spec.kind == "regression" or spec.above is not None:
        numbers = _numbers(rows, place, spec)
        if spec.above is None:
            return numbers
        return pc.greater(numbers, spec.above).cast(pa.int8())
    dtype = rows[spec.source].type if spec.source in rows.column_names else pa.string()
    values = typed_column(rows, place, spec.source, dtype, nullable=True)
    if values.null_count:
        raise _missing(values, place, spec)
    words = [value_text(value) for value in values.to_pylist()]
    if spec.kind == "multiclass":
        return pa.chunked_array([pa.array(words, pa.string())])
    if spec.positive is not None:
        positive = value_text(spec.positive)
        return pa.chunked_array([pa.array([word == positive for word in words]).cast(pa.int8())])
    for row, word in enumerate(words):
        if word.lower() not in TRUTHS:
            raise DataRefused(
                f"column {spec.source!r} of {place} must be 0 or 1: row {row + 1} has {word!r}. "
                "Name the positive value with data.target.positive."
            )
    return pa.chunked_array([pa.array([TRUTHS[word.lower()] for word in words], pa.int8())])


def target_classes(spec: TargetSpec, parts: Mapping[str, pa.Table]) -> tuple[str, ...] | None:
    """The classes of a multiclass target; None for other kinds.

    Raises `DataRefused` for classes that train lacks, and for a target without two values in a
    split that is trained on or judged by.
    """
    if spec.kind == "regression":
        return None
    found = {split: set(part[spec.name].to_pylist()) for split, part in parts.items()}
    if spec.kind == "multiclass":
        return class_names(spec.name, found)
    for split, values in found.items():
        if len(values) == 1 and split != LATER:
            raise DataRefused(
                f"the target {spec.name!r} is {values.pop()} in every row of the split {split!r}: "
                "there is nothing to tell apart"
            )
    return None


def _numbers(rows: pa.Table, place: str, spec: TargetSpec) -> pa.ChunkedArray:
    numbers = typed_column(rows, place, spec.source, pa.float64(), nullable=True)
    if numbers.null_count:
        raise _missing(numbers, place, spec)
    bad = pc.index(pc.is_finite(numbers), False).as_py()
    if bad >= 0:
        raise DataRefused(
            f"column {spec.source!r} of {place} is the target: row {bad + 1} has "
            f"{numbers[bad].as_py()}, which is no finite number"
        )
    return numbers


def _missing(values: pa.ChunkedArray, place: str, spec: TargetSpec) -> DataRefused:
    row = pc.index(pc.is_null(values), True).as_py() + 1
    return DataRefused(
        f"column {spec.source!r} of {place} is the target and has {values.null_count} empty "
        f"values, the first in row {row}. Leave such rows out with "
        f"data.drop='{{unlabelled: {spec.source} IS NULL}}'"
    )
