from __future__ import annotations

from pathlib import Path

import pytest

from conf import compose
from conf.site_schema import Site, site_config


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The box's site with its state in a folder of the test's own."""
    monkeypatch.setenv("LOCKGATE_SITE", str(tmp_path / "state"))
    return site_config(compose("site"))
