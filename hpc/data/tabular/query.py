"""The rows of a tabular dataset: typed tables, through DuckDB SQL that sees nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from hpc.data.refusal import DataRefused
from hpc.data.tables import NULLABLE, TYPES, read_raw_table, typed_column
from hpc.data.tabular.dataset import TabularDataset

REASON = "_drop_reason"


def read_tables(config: TabularDataset, paths: Mapping[str, Path]) -> dict[str, pa.Table]:
    """Every source table, its columns renamed and typed. Raises `DataRefused`."""
    return {name: _read_table(config, name, path) for name, path in paths.items()}


def query_rows(
    config: TabularDataset, tables: Mapping[str, pa.Table]
) -> tuple[pa.Table, dict[str, int]]:
    """The rows of the query over `tables`, and how many were left out by each reason of `drop`.

    One thread and no files: the result is decided by the tables alone. Raises `DataRefused` with
    DuckDB's message for SQL that fails.
    """
    query = config.query or f"SELECT * FROM {_quoted(next(iter(tables)))}"
    reasons = "".join(
        f" WHEN {condition} THEN {place}" for place, condition in enumerate(config.drop.values())
    )
    settings: dict[str, str | bool | int | float | list[str]] = {
        "threads": "1",
        "python_enable_replacements": "false",
    }
    with duckdb.connect(":memory:", config=settings) as connection:
        for name, table in tables.items():
            connection.register("_arrow", table)
            connection.execute(f"CREATE TABLE {_quoted(name)} AS SELECT * FROM _arrow")
            connection.unregister("_arrow")
        connection.execute("SET enable_external_access = false; SET lock_configuration = true")
        try:
            statements = connection.extract_statements(query)
            if not statements or statements[-1].type != duckdb.StatementType.SELECT:
                raise DataRefused("data.query: the last statement is no SELECT")
            rows = connection.sql(query).to_arrow_table()
        except duckdb.Error as error:
            raise DataRefused(f"data.query: {_sentence(error)}") from error
        if not config.drop:
            return rows, {}
        connection.register("_rows", rows)
        try:
            found = connection.sql(f"SELECT CASE{reasons} END AS {REASON} FROM _rows")
            reason_of = found.to_arrow_table()[REASON]
        except duckdb.Error as error:
            raise DataRefused(f"data.drop: {_sentence(error)}") from error
    counts = {
        reason: pc.sum(pc.equal(reason_of, place)).as_py() or 0
        for place, reason in enumerate(config.drop)
    }
    return rows.filter(pc.is_null(reason_of)), counts


def declared_types(config: TabularDataset, table: str) -> dict[str, tuple[pa.DataType, bool]]:
    """(type, nullable) of the columns of `table` that are typed before the query.

    Without a query those of the features come first: a wrong value is then named by its row. Rows
    that `drop` leaves out may lack any of them.
    """
    found: dict[str, tuple[pa.DataType, bool]] = {}
    if not config.query:
        may_lack = bool(config.drop)
        for one in config.features:
            found[one.name] = (WIRE_TYPES[one.wire], one.nullable or may_lack)
        if config.target.kind == "regression" or config.target.above is not None:
            found[config.target.source] = (pa.float64(), may_lack)
        if config.split.time:
            found[config.split.time] = (TYPES["timestamp"], may_lack)
    for name, dtype in config.types.get(table, {}).items():
        found[name] = (TYPES[dtype.removeprefix(NULLABLE)], dtype.startswith(NULLABLE))
    return found


WIRE_TYPES = {"BYTES": pa.string(), "INT32": pa.int32(), "FP32": pa.float32()}


def _read_table(config: TabularDataset, name: str, path: Path) -> pa.Table:
    raw = read_raw_table(path, config.csv)
    names = config.columns.get(name, {})
    typed = {
        column: typed_column(raw, path.name, column, dtype, nullable, names.get(column, column))
        for column, (dtype, nullable) in declared_types(config, name).items()
    }
    renamed = {theirs: ours for ours, theirs in names.items()}
    rest = (
        {}
        if config.query and typed
        else {
            renamed.get(column, column): raw[column]
            for column in raw.column_names
            if renamed.get(column, column) not in typed
        }
    )
    table = pa.table({**typed, **rest})
    keys = config.unique.get(name)
    if keys:
        distinct = table.select(keys).group_by(keys).aggregate([]).num_rows
        if distinct != table.num_rows:
            raise DataRefused(
                f"{', '.join(keys)} of {path.name} occurs {table.num_rows - distinct} times more "
                "than once"
            )
    return table


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _sentence(error: duckdb.Error) -> str:
    return " ".join(str(error).split())
