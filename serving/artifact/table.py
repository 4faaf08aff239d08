"""Prepared tables as raw columns: how Parquet's nulls become what a client would send."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

NOT_FEATURES = ("day", "late")


def raw_columns(table: pa.Table) -> dict[str, np.ndarray]:
    """The feature columns of a prepared table, each [rows]: text as objects with "" for null,
    float32 with NaN for null, int32 as it is. `day` and `late` are left out.
    """
    return {name: _raw(table[name]) for name in table.column_names if name not in NOT_FEATURES}


def read_split(path: Path) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """A prepared Parquet split: raw columns, `late` int8 [rows], `day` datetime64[D] [rows]."""
    table = pq.read_table(path)
    return raw_columns(table), table["late"].to_numpy(), table["day"].to_numpy()


def _raw(column: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_string(column.type):
        return np.array([value or "" for value in column.to_pylist()], dtype=object)
    if pa.types.is_floating(column.type):
        return column.fill_null(float("nan")).to_numpy()
    return column.to_numpy()
