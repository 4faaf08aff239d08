"""A flights source and its dataset, prepared once for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc.data.prepare import prepare
from hpc.data.publish import Published
from tests.datasets import (
    flights_config,
    quiet,
    webster_config,
    write_flights_source,
    write_webster_source,
)


@pytest.fixture(scope="session")
def flights_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_flights_source(tmp_path_factory.mktemp("source") / "flights")


@pytest.fixture(scope="session")
def webster_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_webster_source(tmp_path_factory.mktemp("source") / "gcide.dict.dz")


@pytest.fixture(scope="session")
def flights(flights_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Published:
    return prepare(flights_config(flights_source), tmp_path_factory.mktemp("data"), quiet)


@pytest.fixture(scope="session")
def webster(webster_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Published:
    return prepare(webster_config(webster_source), tmp_path_factory.mktemp("data"), quiet)
