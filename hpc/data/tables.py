"""Tables out of CSV and Parquet files, and columns of a type, refused by file, column and row."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv

from hpc.data.refusal import DataRefused
from hpc.data.source import unpacked_bytes

TYPES = {
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "string": pa.string(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
}
"""Arrow type of each column type that a config can name; dates and times are ISO 8601."""
NULLABLE = "nullable "
"""Before a type's name: values may be missing."""
BLOCK_BYTES = 1 << 26
"""Bytes of CSV that are parsed at once; no row can be longer."""


@dataclass(frozen=True)
class CsvFormat:
    """The format of CSV files: always UTF-8 with a header, quotes are `"`."""

    delimiter: str = ","
    """One character between values."""
    missing: tuple[str, ...] = ("", "NA")
    """Values that stand for a missing one, quoted or not."""

    def __post_init__(self) -> None:
        if len(self.delimiter.encode()) != 1 or self.delimiter in '"\r\n':
            raise ValueError(f"delimiter={self.delimiter!r}: must be one ASCII character")


def read_raw_table(path: Path, csv_format: CsvFormat) -> pa.Table:
    """The file `path`, `.parquet` with its own types and any other as CSV with every value as text.

    A CSV file may be packed (.zip, .gz). Raises `DataRefused` for a file that cannot be read, has
    no rows, or has two columns of one name.
    """
    if path.suffix == ".parquet":
        try:
            table = pq.read_table(path)
        except pa.ArrowInvalid as error:
            raise DataRefused(f"{path.name} is not a Parquet table: {error}") from error
    else:
        table = _read_csv(path, csv_format)
    twice = [name for name, count in Counter(table.column_names).items() if count > 1]
    if twice:
        raise DataRefused(f"column {twice[0]!r} occurs twice in the header of {path.name}")
    if table.num_rows == 0:
        raise DataRefused(f"{path.name} has no rows. Install the source again.")
    return table


def typed_column(
    table: pa.Table, place: str, name: str, dtype: pa.DataType, nullable: bool, source: str = ""
) -> pa.ChunkedArray:
    """The column `name` of `table` as `dtype`; `place` is the file or query it came from.

    `source` is the column's name there, where it differs. NaN is a missing value. Raises
    `DataRefused` for a column that is not there, a missing value in one that is not nullable, or a
    value of another type.
    """
    found = source or name
    if found not in table.column_names:
        raise DataRefused(
            f"column {found!r} is missing in {place} (found: {', '.join(table.column_names)}). "
            "Fix the source, or map the column with data.columns."
        )
    column = table[found]
    if not nullable and column.null_count:
        raise DataRefused(
            f"column {found!r} of {place} has {column.null_count} empty values, "
            f"the first in row {pc.index(pc.is_null(column), True).as_py() + 1}"
        )
    try:
        trimmed = pa.types.is_string(column.type) and not pa.types.is_string(dtype)
        made = (pc.utf8_trim_whitespace(column) if trimmed else column).cast(dtype)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataRefused(
            f"column {found!r} of {place} must be {dtype}: {_first_bad(column, dtype)}"
        ) from error
    if not nullable and pa.types.is_floating(dtype):
        unknown = pc.index(pc.is_nan(made), True).as_py()
        if unknown >= 0:
            value = column[unknown].as_py()
            raise DataRefused(
                f"column {found!r} of {place} must be {dtype}: row {unknown + 1} has {value!r}"
            )
    return made


def row_texts(table: pa.Table) -> list[str]:
    """Each row as one text, equal for equal rows alone."""
    columns = [column.to_pylist() for column in table.columns]
    return [repr(row) for row in zip(*columns, strict=True)]


def value_text(value: object) -> str:
    """A cell as the text that a CSV file would hold: ISO dates, `true`, whole floats as 1.0."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    return str(value)


def _read_csv(path: Path, csv_format: CsvFormat) -> pa.Table:
    data = unpacked_bytes(path)
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataRefused(f"{path.name} is not UTF-8 in line {line}. Save it as UTF-8.") from error
    parse = csv.ParseOptions(delimiter=csv_format.delimiter, newlines_in_values=True)
    blocks = csv.ReadOptions(block_size=BLOCK_BYTES)
    try:
        header = csv.open_csv(io.BytesIO(data), parse_options=parse, read_options=blocks).schema
        return csv.read_csv(
            io.BytesIO(data),
            parse_options=parse,
            read_options=blocks,
            convert_options=csv.ConvertOptions(
                column_types={name: pa.string() for name in header.names},
                null_values=list(csv_format.missing),
                strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid as error:
        raise DataRefused(f"{path.name} is not a CSV table: {error}") from error


def _first_bad(column: pa.ChunkedArray, dtype: pa.DataType) -> str:
    is_text = pa.types.is_string(column.type)
    for row, value in enumerate(column):
        try:
            (pc.utf8_trim_whitespace(value) if is_text else value).cast(dtype)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return f"row {row + 1} has {value.as_py()!r}"
    return f"it is {column.type}"
