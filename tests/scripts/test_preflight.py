"""Whatever keeps the box from coming up is one line that says what to do."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.box import preflight
from scripts.box.program import Refusal


def test_a_missing_package_is_named_with_the_command_that_brings_it() -> None:
    packages = {"/usr/sbin/nosuchd": "nosuch-server", "/bin/sh": "dash"}
    with pytest.raises(Refusal) as refusal:
        preflight.refuse_missing(packages)
    line = str(refusal.value)
    assert "not installed: nosuchd" in line
    assert "apt-get install --no-install-recommends nosuch-server" in line
    assert "dash" not in line
    assert "\n" not in line


def test_without_root_the_way_without_daemons_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Refusal, match="cluster=local"):
        preflight.refuse_without_root()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter; pytest's own is closed above."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_checkout_behind_a_closed_folder_is_refused_by_that_folder(open_folder: Path) -> None:
    home = open_folder / "private"
    checkout = home / "lockgate"
    checkout.mkdir(parents=True)
    preflight.refuse_closed(checkout)
    home.chmod(0o700)
    with pytest.raises(Refusal) as refusal:
        preflight.refuse_closed(checkout)
    assert str(refusal.value).startswith(f"{home} (mode 0700)")


def test_a_root_too_long_for_sockets_is_refused() -> None:
    preflight.refuse_long_root(Path("/srv/lockgate"))
    with pytest.raises(Refusal, match="LOCKGATE_SITE"):
        preflight.refuse_long_root(Path("/srv") / ("x" * 60))


def test_a_half_made_environment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="scripts/setup"):
        preflight.refuse_half_setup(tmp_path)
    (tmp_path / ".lockgate-installed").write_text("digest\n")
    preflight.refuse_half_setup(tmp_path)
