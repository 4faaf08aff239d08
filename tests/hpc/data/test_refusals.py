"""Bad input is refused by name, and the dataset that was there stays as it was."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from hpc.data import lineage
from hpc.data.prepare import prepare
from hpc.data.publish import Published
from hpc.data.refusal import DataRefused
from serving.artifact.digest import file_sha256
from tests.datasets import flights_config, quiet, read_source, webster_config, write_csv

Spoil = Callable[[Path], None]


def without_column(folder: Path) -> None:
    table = read_source(folder / "flights.csv")
    write_csv(table.drop_columns(["sched_dep_time"]), folder / "flights.csv")


def set_first(table: str, column: str, value: str) -> Spoil:
    def spoil(folder: Path) -> None:
        found = read_source(folder / f"{table}.csv")
        values = [value, *found[column].to_pylist()[1:]]
        place = found.column_names.index(column)
        write_csv(found.set_column(place, column, pa.array(values)), folder / f"{table}.csv")

    return spoil


def only_header(folder: Path) -> None:
    header = (folder / "weather.csv").read_text().splitlines()[0]
    (folder / "weather.csv").write_text(header + "\n")


def empty_file(folder: Path) -> None:
    (folder / "planes.csv").write_bytes(b"")


def missing_file(folder: Path) -> None:
    (folder / "planes.csv").unlink()


def truncated_zip(folder: Path) -> None:
    packed = folder / "flights.csv.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "flights.csv", "flights.csv")
    packed.write_bytes(packed.read_bytes()[:-4000])
    (folder / "flights.csv").unlink()


def twice_the_same_hour(folder: Path) -> None:
    lines = (folder / "weather.csv").read_text().splitlines()
    (folder / "weather.csv").write_text("\n".join([*lines, lines[1]]) + "\n")


def ragged_row(folder: Path) -> None:
    with (folder / "planes.csv").open("a") as file:
        file.write("N1,2000\n")


def only_january(folder: Path) -> None:
    lines = (folder / "flights.csv").read_text().splitlines()
    kept = [lines[0], *(line for line in lines[1:] if line.startswith("2013,1,"))]
    (folder / "flights.csv").write_text("\n".join(kept) + "\n")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (without_column, r"'sched_dep_time' is missing in flights.csv \(found: year, month"),
        (set_first("flights", "sched_dep_time", "noon"), "'sched_dep_time' .* row 1 has 'noon'"),
        (set_first("flights", "sched_dep_time", "1275"), "'sched_dep_time' must be a time .* 1275"),
        (set_first("flights", "carrier", "NA"), "'carrier' of flights.csv has 1 empty values"),
        (set_first("flights", "distance", "-5"), r"distance\[\d+\] is -5"),
        (set_first("weather", "temp", "hot"), "'temp' of weather.csv must be float.*'hot'"),
        (only_header, "weather.csv has no rows"),
        (empty_file, "planes.csv is empty"),
        (missing_file, "planes.csv is missing"),
        (truncated_zip, "flights.csv.zip cannot be unpacked"),
        (twice_the_same_hour, "origin, time_hour of weather.csv occurs 1 times more"),
        (ragged_row, "planes.csv is not a CSV table"),
        (only_january, "the split 'later' has no rows"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_bad_flights(
    spoil: Spoil, said: str, flights: Published, flights_source: Path, tmp_path: Path
) -> None:
    folder = _copied(flights_source, tmp_path / "source")
    root = flights.path.parents[1]
    before = _state(root / "flights")
    spoil(folder)
    with pytest.raises(DataRefused, match=said):
        prepare(flights_config(folder), root, quiet)
    assert _state(root / "flights") == before
    lineage.verify_dataset(lineage.current_dataset(root, "flights"))


def test_another_digest_than_the_pinned_one(
    flights: Published, flights_source: Path, tmp_path: Path
) -> None:
    folder = _copied(flights_source, tmp_path / "source")
    pins = {table: file_sha256(folder / f"{table}.csv") for table in ("flights", "planes")}
    good = prepare(flights_config(folder, sha256=pins), flights.path.parents[1], quiet)
    assert good.state == "unchanged"
    with (folder / "planes.csv").open("a") as file:
        file.write("\n")
    with pytest.raises(DataRefused, match=r"planes.csv has sha256 .* data.source.sha256.planes="):
        prepare(flights_config(folder, sha256=pins), flights.path.parents[1], quiet)


def test_a_renamed_column_can_be_mapped(
    flights: Published, flights_source: Path, tmp_path: Path
) -> None:
    folder = _copied(flights_source, tmp_path / "source")
    text = (folder / "flights.csv").read_text().replace("sched_dep_time", "crs_dep_time", 1)
    (folder / "flights.csv").write_text(text)
    columns = {"flights": {"sched_dep_time": "crs_dep_time"}}
    mapped = prepare(flights_config(folder, columns=columns), tmp_path / "data", quiet)
    assert mapped.lineage.digest == flights.lineage.digest


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (truncated, "gcide.dict.dz cannot be unpacked .* truncated or damaged"),
        (flipped, "gcide.dict.dz cannot be unpacked"),
        (lambda data: b"", "gcide.dict.dz is empty"),
        (lambda data: b"plain text", "gcide.dict.dz cannot be unpacked"),
        (lambda data: gzip.compress(b"short"), "holds 5 bytes of text, too few"),
        (
            lambda data: gzip.compress(gzip.decompress(data)[:-10] + b"stray \xff."),
            "the holdout is not clean UTF-8 at byte 19,9",
        ),
    ],
    ids=["truncated", "flipped", "empty", "not packed", "short", "not UTF-8"],
)
def test_bad_webster(
    spoil: Callable[[bytes], bytes],
    said: str,
    webster: Published,
    webster_source: Path,
    tmp_path: Path,
) -> None:
    root = webster.path.parents[1]
    before = _state(root / "webster")
    spoiled = tmp_path / "gcide.dict.dz"
    spoiled.write_bytes(spoil(webster_source.read_bytes()))
    with pytest.raises(DataRefused, match=said):
        prepare(webster_config(spoiled), root, quiet)
    assert _state(root / "webster") == before
    lineage.verify_dataset(lineage.current_dataset(root, "webster"))


def test_webster_with_another_digest(webster_source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match=r"data\.source\.sha256\.dictionary pins 0000"):
        prepare(webster_config(webster_source, sha256={"dictionary": "0" * 64}), tmp_path, quiet)
    assert [path.name for path in (tmp_path / "webster").iterdir()] == [".lock"]


def _copied(source: Path, target: Path) -> Path:
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def _state(home: Path) -> dict[str, str]:
    """Every file below `home` with its digest or target: nothing may be left, lost or moved."""
    return {
        str(path.relative_to(home)): str(path.readlink())
        if path.is_symlink()
        else file_sha256(path)
        for path in home.rglob("*")
        if path.is_symlink() or path.is_file()
    }
