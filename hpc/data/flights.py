"""Flights out of New York: joined tables, whole-day splits, and a transform fitted on train."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hpc.data.config import FlightsConfig
from hpc.data.flights_schema import PREPARED
from hpc.data.flights_source import lookup, read_table, unique
from hpc.data.flights_transform import fit
from hpc.data.recipe import Made
from hpc.data.refusal import DataRefused
from hpc.data.source import SourceFile, package_folder, package_version, pin_all
from serving.artifact.table import raw_columns
from serving.runtime.errors import InvalidInput

TABLES = ("flights", "weather", "planes")
LATER = "later"

Say = Callable[[str], None]


def sources(config: FlightsConfig) -> dict[str, SourceFile]:
    """The raw tables, checked against their pins."""
    pins = {table: config.source.sha256.get(table, "") for table in TABLES}
    return pin_all(_folder(config), pins, "data.source.sha256")


def source_version(config: FlightsConfig) -> str:
    """The installed version of the package with the tables."""
    return package_version(config.source.name)


def make(config: FlightsConfig, staged: Path, say: Say) -> Made:
    """Write the dataset's files into the folder `staged`. Raises `DataRefused` on bad input."""
    tables = {
        table: read_table(path, table, config.columns.get(table, {}))
        for table, path in _paths(config).items()
    }
    say(f"read {', '.join(f'{name} {table.num_rows:,}' for name, table in tables.items())} rows")
    flights, dropped = arrived(tables["flights"])
    prepared = join(flights, tables["weather"], tables["planes"], config.late_minutes)
    split_of = split_days(prepared["day"].unique().to_pylist(), config)
    described, columns = {}, {}
    for split in (*config.fractions, LATER):
        days = pa.array([day for day, owner in split_of.items() if owner == split], pa.date32())
        rows = prepared.filter(pc.is_in(prepared["day"], value_set=days))
        if rows.num_rows == 0:
            raise DataRefused(f"the split {split!r} has no rows: the source has too few days")
        pq.write_table(rows, staged / f"{split}.parquet", compression="zstd")
        described[split] = {"file": f"{split}.parquet", "rows": rows.num_rows, "days": len(days)}
        columns[split] = raw_columns(rows)
        late = pc.mean(rows["late"]).as_py()
        say(f"{split}: {rows.num_rows:,} flights on {len(days)} days, {late:.1%} late")
    try:
        transform = fit(columns["train"], config.min_category_count)
        for split, raw in columns.items():
            transform.encode(raw)
            say(f"{split}: every row passes the transform")
    except InvalidInput as error:
        raise DataRefused(f"a value cannot be: {error}") from error
    (staged / "transform.json").write_text(transform.to_json())
    schema = {field.name: str(field.type) for field in PREPARED}
    return Made(schema, described, {"dropped_rows": dropped})


def arrived(flights: pa.Table) -> tuple[pa.Table, dict[str, int]]:
    """The flights that arrived where they were meant to, and how many did not.

    A cancelled or diverted flight has no arrival delay, so neither label would be true.
    """
    cancelled = pc.sum(pc.is_null(flights["dep_time"])).as_py()
    without_arrival = pc.sum(pc.is_null(flights["arr_delay"])).as_py()
    dropped = {"cancelled": cancelled, "diverted": without_arrival - cancelled}
    return flights.filter(pc.is_valid(flights["arr_delay"])), dropped


def join(flights: pa.Table, weather: pa.Table, planes: pa.Table, late_minutes: float) -> pa.Table:
    """One row per flight in the prepared schema, ordered by day and scheduled departure."""
    hour_keys = unique(_hour_key(weather), "an hour of weather at one origin")
    at_hour = lookup(_hour_key(flights), weather, hour_keys)
    plane = lookup(flights["tailnum"], planes, unique(planes["tailnum"], "a tail number"))
    days = pa.array(
        [
            date(year, month, day)
            for year, month, day in zip(
                *(flights[part].to_pylist() for part in ("year", "month", "day")), strict=True
            )
        ],
        pa.date32(),
    )
    derived = {
        "weekday": pc.day_of_week(days).cast(pa.int32()),
        "sched_dep_minute": _minutes(flights, "sched_dep_time"),
        "sched_arr_minute": _minutes(flights, "sched_arr_time"),
        "plane_year": plane["year"],
        "manufacturer": plane["manufacturer"],
        "seats": plane["seats"],
        "day": days,
        "late": pc.greater(flights["arr_delay"], late_minutes).cast(pa.int8()),
    }
    weather_columns = {name: at_hour[name] for name in at_hour.column_names}
    flight_columns = {name: flights[name] for name in flights.column_names}
    found = {**weather_columns, **flight_columns, **derived}
    table = pa.table({field.name: found[field.name] for field in PREPARED}, schema=PREPARED)
    order = [(name, "ascending") for name in ("day", "sched_dep_minute", "carrier", "dest")]
    return table.sort_by(order)


def split_days(days: list[date], config: FlightsConfig) -> dict[date, str]:
    """Give every whole day to one split: flights of one day share weather and delays.

    Days are put in the order of a seeded hash, which no library version can change. Days after
    `last_training_month` are what production sees later.
    """

    def shuffled(day: date) -> str:
        return hashlib.sha256(f"{config.seed}:{day.isoformat()}".encode()).hexdigest()

    early = sorted((day for day in days if day.month <= config.last_training_month), key=shuffled)
    split_of = {day: LATER for day in days if day.month > config.last_training_month}
    share, start = 0.0, 0
    for split, fraction in config.fractions.items():
        share += fraction
        stop = round(share * len(early))
        split_of.update(dict.fromkeys(early[start:stop], split))
        start = stop
    return split_of


def _folder(config: FlightsConfig) -> Path:
    if config.source.folder:
        return Path(config.source.folder)
    return package_folder(config.source.name, "data")


def _paths(config: FlightsConfig) -> dict[str, Path]:
    return {table: _folder(config) / file.path for table, file in sources(config).items()}


def _hour_key(table: pa.Table) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(table["origin"], table["time_hour"], " ")


def _minutes(flights: pa.Table, column: str) -> pa.Array:
    clock = flights[column].to_numpy()
    hours, minutes = clock // 100, clock % 100
    bad = (hours < 0) | (hours > 24) | (minutes > 59)
    if bad.any():
        row = int(np.argmax(bad))
        raise DataRefused(f"column {column!r} must be a time as hhmm: a row has {clock[row]}")
    return pa.array(hours * 60 + minutes, pa.int32())
