"""Read the source tables of the flights data, and refuse by name what does not fit the schema."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from hpc.data.flights_schema import NULLABLE, SOURCE
from hpc.data.refusal import DataRefused


def read_table(path: Path, table: str, columns: Mapping[str, str]) -> pa.Table:
    """Read the CSV file `path` (`.csv` or `.csv.zip`) as the source table `table`.

    `columns` maps a name of ours to the file's name, where they differ. Raises `DataRefused` for a
    file that cannot be read, has no rows, lacks a column, or has a value of the wrong type.
    """
    try:
        text = csv.read_csv(
            io.BytesIO(_unzipped(path)),
            convert_options=csv.ConvertOptions(
                column_types={name: pa.string() for name in _header(path)},
                null_values=["NA", ""],
                strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid as error:
        raise DataRefused(f"{path.name} is not a CSV table: {error}") from error
    if text.num_rows == 0:
        raise DataRefused(f"{path.name} has no rows. Install the source again.")
    schema = SOURCE[table]
    arrays = {
        name: _typed(path, text, columns.get(name, name), dtype, name in NULLABLE[table])
        for name, dtype in schema.items()
    }
    return pa.table(arrays, schema=pa.schema(list(schema.items())))


def lookup(keys: pa.ChunkedArray, table: pa.Table, table_keys: pa.ChunkedArray) -> pa.Table:
    """The row of `table` for each of `keys`, nulls where there is none; in the order of `keys`."""
    return table.take(pc.index_in(keys, value_set=table_keys))


def unique(keys: pa.ChunkedArray, what: str) -> pa.ChunkedArray:
    """`keys` as they are; raises `DataRefused` for one that occurs twice: a join would guess."""
    distinct = pc.count_distinct(keys).as_py()
    if distinct != len(keys):
        raise DataRefused(f"{what} occurs {len(keys) - distinct} times more than once")
    return keys


def _unzipped(path: Path) -> bytes:
    if path.suffix != ".zip":
        return path.read_bytes()
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(path.stem)
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise DataRefused(
            f"{path.name} cannot be unpacked ({error}). Install the source again."
        ) from error


def _header(path: Path) -> list[str]:
    first = _unzipped(path).split(b"\n", 1)[0].decode("utf-8", "replace").strip()
    return [name.strip('"') for name in first.split(",")]


def _typed(path: Path, text: pa.Table, name: str, dtype: pa.DataType, nullable: bool):
    if name not in text.column_names:
        raise DataRefused(
            f"column {name!r} is missing in {path.name} (found: {', '.join(text.column_names)}). "
            "Fix the source, or map the column with data.columns."
        )
    column = text[name]
    if not nullable and column.null_count:
        raise DataRefused(f"column {name!r} of {path.name} has {column.null_count} empty values")
    try:
        return column.cast(dtype)
    except pa.ArrowInvalid as error:
        raise DataRefused(
            f"column {name!r} of {path.name} must be {dtype}: {_first_bad(column, dtype)}"
        ) from error


def _first_bad(column: pa.ChunkedArray, dtype: pa.DataType) -> str:
    for row, value in enumerate(column):
        try:
            value.cast(dtype)
        except pa.ArrowInvalid:
            return f"row {row + 1} has {value.as_py()!r}"
    raise AssertionError("a column that cannot be cast has a value that cannot be cast")
