"""Durable writes: whole or not at all, with their mode, also when the disk is full."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from serving.artifact.durable import append_line, replace_file, replace_folder, seal_tree


def test_a_file_is_replaced_with_its_mode_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    replace_file(path, "first")
    assert path.stat().st_mode & 0o777 == 0o644
    replace_file(path, b"second", mode=0o400)
    assert path.read_bytes() == b"second" and path.stat().st_mode & 0o777 == 0o400
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    replace_file(path, "first")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, "second")
    assert path.read_text() == "first"
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]
    replace_file(path, "third", durable=False)  # never calls fsync
    assert path.read_text() == "third"


def test_a_line_after_a_torn_one_is_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    append_line(path, '{"a": 1}')
    with path.open("a") as torn:
        torn.write('{"b"')
    append_line(path, '{"c": 3}')
    first, torn_line, last = path.read_text().splitlines()
    assert (json.loads(first), torn_line, json.loads(last)) == ({"a": 1}, '{"b"', {"c": 3})


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    for name, text in (("staged", "new"), ("target", "old")):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner/file").write_text(text)
    (tmp_path / "target/gone").write_text("only in the old one")
    replace_folder(tmp_path / "staged", tmp_path / "target")
    assert (tmp_path / "target/inner/file").read_text() == "new"
    assert not (tmp_path / "target/gone").exists()
    assert [one.name for one in tmp_path.iterdir()] == ["target"]


def test_a_sealed_tree_is_read_only(tmp_path: Path) -> None:
    (tmp_path / "tree/inner").mkdir(parents=True)
    (tmp_path / "tree/inner/file").write_text("x")
    seal_tree(tmp_path / "tree")
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "tree").rglob("*")}
    assert modes == {0o444, 0o555}
    for folder in (tmp_path / "tree", tmp_path / "tree/inner"):
        folder.chmod(0o755)
