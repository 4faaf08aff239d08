"""A site for sweeps, and the code of this checkout, which is read once."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc.jobs.submit import InstalledCode, read_installed
from tests.hpc.jobs.standin import publish_toy


@pytest.fixture(scope="session")
def installed() -> InstalledCode:
    return read_installed()


@pytest.fixture()
def site(tmp_path: Path, monkeypatch, installed) -> Path:
    """A site; code is read once for all tests, and no snapshot of it is taken."""
    monkeypatch.setenv("LOCKGATE_SITE", str(tmp_path))
    monkeypatch.setattr("os.fsync", lambda _: None)
    monkeypatch.setattr("hpc.jobs.submit.read_installed", lambda: installed)
    monkeypatch.setattr("hpc.jobs.submit.take_snapshot", lambda *_: None)
    publish_toy(tmp_path)
    return tmp_path
