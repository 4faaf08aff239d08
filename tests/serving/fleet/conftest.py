"""Fixtures that several tests of the fleet share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.fleet.journals import folder_in_memory


@pytest.fixture
def folder() -> Iterator[Path]:
    """The folder of a journal."""
    with folder_in_memory() as made:
        yield made
