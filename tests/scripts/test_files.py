"""Generated files are written when they differ, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scripts.box.files import ensure_files, ensure_folders
from scripts.box.program import File, Folder

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users")


def test_what_is_right_is_not_touched(tmp_path: Path) -> None:
    file = File(tmp_path / "a.conf", "one\n")
    assert ensure_files([file]) == [file.path]
    inode = file.path.stat().st_ino
    assert ensure_files([file]) == []
    assert file.path.stat().st_ino == inode


def test_what_differs_is_replaced_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "a.conf"
    path.write_text("old\n")
    assert ensure_files([File(path, "new\n", mode=0o600)]) == [path]
    assert path.read_text() == "new\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["a.conf"]


def test_a_mode_that_was_loosened_is_set_back(tmp_path: Path) -> None:
    file = File(tmp_path / "a.conf", "one\n", mode=0o600)
    ensure_files([file])
    file.path.chmod(0o644)
    assert ensure_files([file]) == []
    assert file.path.stat().st_mode & 0o777 == 0o600


def test_folders_have_their_owner(tmp_path: Path) -> None:
    ensure_folders([Folder(tmp_path / "a" / "b", "nobody", "nogroup", 0o750)])
    found = (tmp_path / "a" / "b").stat()
    assert (found.st_uid, found.st_mode & 0o777) == (65534, 0o750)
