"""Build a tabular dataset: rows of the query, whole groups in splits, a transform of train."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hpc.data.dataset import BuildResult, Progress
from hpc.data.refusal import DataRefused
from hpc.data.split import split_table
from hpc.data.tables import typed_column
from hpc.data.tabular.dataset import TabularDataset
from hpc.data.tabular.fit import fit_features, fit_target
from hpc.data.tabular.query import WIRE_TYPES, query_rows, read_tables
from hpc.data.tabular.target import target_classes, target_column
from serving.artifact.splits import raw_columns
from serving.runtime.errors import InvalidInput
from serving.runtime.tabular_transform import TabularTransform


def build_tabular(config: TabularDataset, staging: Path, progress: Progress) -> BuildResult:
    """Write splits and transform into the folder `staging`. Raises `DataRefused` on bad input."""
    tables = read_tables(config, config.source.paths())
    sizes = ", ".join(f"{name} {table.num_rows:,}" for name, table in tables.items())
    progress(f"read {sizes} rows")
    rows, dropped = query_rows(config, tables)
    parts = split_rows(rows, config)
    train = parts["train"]
    classes = target_classes(config.target, parts)
    names = [one.name for one in config.features]
    raw = {split: raw_columns(part, names) for split, part in parts.items()}
    try:
        transform = TabularTransform(
            fit_features(config.features, raw["train"], config.min_category_count),
            fit_target(config.target, train[config.target.name].to_numpy(), classes),
            config.group or None,
        )
        for split, part in parts.items():
            transform.encode(raw[split])
            pq.write_table(part, staging / f"{split}.parquet", compression="zstd")
            progress(f"{split}: {part.num_rows:,} rows, every one passes the transform")
    except InvalidInput as error:
        raise DataRefused(f"a value cannot be: {error}") from error
    (staging / "transform.json").write_text(transform.to_json(), encoding="utf-8")
    return BuildResult(
        schema={field.name: str(field.type) for field in train.schema},
        splits={split: _size(part, split, config.group) for split, part in parts.items()},
        notes={"dropped_rows": dropped},
    )


def split_rows(rows: pa.Table, config: TabularDataset) -> dict[str, pa.Table]:
    """The prepared rows of every split, in the order of `rows`: features, group, target.

    Raises `DataRefused` for a value of the wrong type, or a split without rows.
    """
    place = (
        "the query's result" if config.query else next(iter(config.source.paths().values())).name
    )
    times = None
    if config.split.time:
        dtype = rows[config.split.time].type if config.split.time in rows.column_names else None
        times = typed_column(rows, place, config.split.time, dtype or pa.string(), nullable=False)
    return split_table(prepared_table(rows, config, place), config.group, times, config.split)


def prepared_table(rows: pa.Table, config: TabularDataset, place: str) -> pa.Table:
    """The columns of the prepared splits, typed: features, group, target."""
    fields, arrays = [], []
    for one in config.features:
        arrays.append(typed_column(rows, place, one.name, WIRE_TYPES[one.wire], one.nullable))
        fields.append(pa.field(one.name, WIRE_TYPES[one.wire], nullable=one.nullable))
    if config.group and config.group not in [one.name for one in config.features]:
        dtype = rows[config.group].type if config.group in rows.column_names else pa.string()
        arrays.append(typed_column(rows, place, config.group, dtype, nullable=False))
        fields.append(pa.field(config.group, dtype, nullable=False))
    target = target_column(rows, place, config.target)
    arrays.append(target)
    fields.append(pa.field(config.target.name, target.type, nullable=False))
    return pa.table(arrays, schema=pa.schema(fields))


def _size(part: pa.Table, split: str, group: str) -> Mapping[str, str | int]:
    size: dict[str, str | int] = {"file": f"{split}.parquet", "rows": part.num_rows}
    if group:
        size["groups"] = pc.count_distinct(part[group]).as_py()
    return size
