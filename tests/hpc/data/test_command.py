"""`lockgate data`: thin, and its errors are sentences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpc.data.command import main


def arguments(source: Path, root: Path, *more: str) -> list[str]:
    tables = ("flights", "weather", "planes")
    pins = [f"data.source.sha256.{table}=''" for table in tables]
    overrides = [f"data.source.folder={source}", *pins]
    return ["prepare", "data=flights", f"site.paths.data={root}", *overrides, *more]


def test_prints_what_was_made_and_what_was_not(
    flights_source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(flights_source, tmp_path, "--json")) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["state"] == "published"
    assert Path(first["path"]).name == first["digest"][:12]
    assert main(arguments(flights_source, tmp_path)) == 0
    assert "is unchanged: train " in capsys.readouterr().out


def test_a_refusal_says_what_where_and_that_the_old_one_stays(
    flights_source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(flights_source, tmp_path)) == 0
    bad = tmp_path / "bad"
    bad.mkdir()
    for file in flights_source.iterdir():
        (bad / file.name).write_bytes(file.read_bytes().replace(b"sched_dep_time", b"leaves", 1))
    capsys.readouterr()
    assert main(arguments(bad, tmp_path)) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert any(
        line.startswith("lockgate: dataset 'flights' was not prepared: column") for line in said
    )
    assert said[-1].startswith("The previous dataset flights@") and "unchanged" in said[-1]


def test_a_target_that_is_no_dataset_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    override = "data._target_=hpc.data.tables.CsvFormat"
    keys = ("source", "holdout_bytes", "validation_bytes", "vocab_size", "pretokenizer", "name")
    assert main(["prepare", "data=webster", override, *(f"~data.{key}" for key in keys)]) == 2
    assert "hpc.data.tables.CsvFormat is not a dataset" in capsys.readouterr().err


def test_refused_at_the_first_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(tmp_path / "nowhere", tmp_path)) == 1
    said = capsys.readouterr().err
    assert "flights.csv is missing" in said and "Nothing was published." in said


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.vocab_sise=9", "vocab_size"),
        ("data.vocab_size=70000", "use 257"),
        ("data.vocab_size=many", "vocab_size"),
    ],
)
def test_a_wrong_setting_is_named(
    override: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", "data=webster", override]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lockgate: ") and said in error and "Traceback" not in error
