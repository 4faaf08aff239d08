from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hpc.jobs.errors import SpecMoved
from hpc.jobs.snapshot import discard, read_checkout, take, verify
from serving.artifact.digest import tree_digest


def git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture()
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    (root / "hpc" / "__pycache__").mkdir(parents=True)
    (root / "conf").mkdir()
    (root / "hpc" / "loop.py").write_text("lr = 1\n")
    (root / "hpc" / "old.py").write_text("old\n")
    (root / "hpc" / "__pycache__" / "loop.pyc").write_bytes(b"\0")
    (root / "conf" / "train.yaml").write_text("steps: 1\n")
    (root / "pyproject.toml").write_text("[project]\n")
    (root / "notes.txt").write_text("not part of any run\n")
    (root / ".gitignore").write_text("__pycache__/\n*.local\n")
    git(root, "init")
    git(root, "add", ".")
    git(root, "commit", "-m", "start")
    return root


@pytest.fixture()
def snapshots(tmp_path: Path):
    yield tmp_path / "snapshots"
    discard(tmp_path / "snapshots")


def test_a_snapshot_holds_the_parts_as_they_stand(checkout, snapshots):
    (checkout / "hpc" / "loop.py").write_text("lr = 2\n")  # edited, not committed
    (checkout / "hpc" / "new.py").write_text("new\n")  # not even added
    (checkout / "hpc" / "secret.local").write_text("ignored by git\n")
    (checkout / "hpc" / "old.py").unlink()
    folder = take(read_checkout(checkout), snapshots)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {"hpc/loop.py", "hpc/new.py", "conf/train.yaml", "pyproject.toml"}
    assert (folder / "hpc" / "loop.py").read_text() == "lr = 2\n"


def test_its_name_is_its_content_and_its_content_is_read_only(checkout, snapshots):
    folder = take(read_checkout(checkout), snapshots)
    assert tree_digest(folder, exclude=()) == folder.name
    assert [path for path in (folder, *folder.rglob("*")) if path.stat().st_mode & 0o222] == []
    assert [path.name for path in snapshots.iterdir()] == [folder.name]


def test_head_and_edits_are_recorded(checkout):
    clean = read_checkout(checkout)
    assert (clean.source.dirty, clean.diff, len(clean.source.commit or "")) == (False, "", 40)
    (checkout / "hpc" / "loop.py").write_text("lr = 2\n")
    edited = read_checkout(checkout)
    assert edited.source.dirty
    assert "+lr = 2" in edited.diff
    assert edited.source.digest != clean.source.digest
    git(checkout, "checkout", "hpc/loop.py")
    (checkout / "hpc" / "new.py").write_text("new\n")
    assert read_checkout(checkout).source.dirty


def test_the_same_source_is_the_same_snapshot(checkout, snapshots):
    first = take(read_checkout(checkout), snapshots)
    os.utime(checkout / "hpc" / "loop.py", (1, 1))
    (checkout / "notes.txt").write_text("other notes\n")
    before = first.stat().st_mtime_ns
    assert take(read_checkout(checkout), snapshots) == first
    assert first.stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", ["edit", "add", "remove"])
def test_a_damaged_snapshot_is_refused_by_a_job_and_mended_by_a_submit(checkout, snapshots, damage):
    read = read_checkout(checkout)
    folder = take(read, snapshots)
    for path in (folder, folder / "hpc", folder / "hpc" / "loop.py"):
        path.chmod(0o755)
    if damage == "edit":
        (folder / "hpc" / "loop.py").write_text("lr = 3\n")
    elif damage == "add":
        (folder / "hpc" / "extra.py").write_text("extra\n")
    else:
        (folder / "hpc" / "loop.py").unlink()
    with pytest.raises(SpecMoved, match="changed after submit"):
        verify(snapshots, read.source)
    assert take(read, snapshots) == folder
    assert verify(snapshots, read.source) == folder


def test_source_that_changes_while_it_is_copied_is_refused(checkout, snapshots):
    read = read_checkout(checkout)
    (checkout / "hpc" / "loop.py").write_text("lr = 2\n")
    with pytest.raises(SpecMoved, match="changed while it was copied"):
        take(read, snapshots)
    assert list(snapshots.iterdir()) == []


def test_without_git_the_packages_are_walked(tmp_path, snapshots):
    root = tmp_path / "installed"
    (root / "hpc" / "__pycache__").mkdir(parents=True)
    (root / "hpc" / "loop.py").write_text("lr = 1\n")
    (root / "hpc" / "__pycache__" / "loop.pyc").write_bytes(b"\0")
    read = read_checkout(root)
    assert read.files == ("hpc/loop.py",)
    assert (read.source.commit, read.source.dirty, read.diff) == (None, False, "")
    assert verify(snapshots, read.source) if take(read, snapshots) else False


def test_a_checkout_inside_another_ones_git_is_walked(checkout):
    inner = checkout / "vendor" / "lockgate"
    (inner / "hpc").mkdir(parents=True)
    (inner / "hpc" / "loop.py").write_text("lr = 1\n")
    assert read_checkout(inner).source.commit is None
