from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conf import compose


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The box's site with its state in a folder of the test's own."""
    monkeypatch.setenv("LOCKGATE_SITE", str(tmp_path / "state"))
    return compose("site").site
