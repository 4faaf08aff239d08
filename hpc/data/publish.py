"""Publish a dataset atomically: stage, fsync, rename, and last of all switch `current`."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hpc.data import lineage as lineages
from hpc.data.lineage import DatasetLineage
from hpc.data.refusal import DataRefused
from serving.artifact.digest import canonical_json, short
from serving.artifact.durable import seal_tree, sync_path

STAGING = ".staging-"


@dataclass(frozen=True)
class Published:
    """The result of `prepare`: `state` is `published` or `unchanged`."""

    name: str
    path: Path
    lineage: DatasetLineage
    state: str


@contextmanager
def staging_folder(data_root: Path, name: str) -> Iterator[Path]:
    """A fresh staging folder beside the datasets called `name`; removed at the end if still there.

    Holding the lock proves that every other staging folder is a dead run's, so they are removed.
    Raises `DataRefused` when another `prepare` of this dataset is at work.
    """
    home = Path(data_root) / name
    home.mkdir(parents=True, exist_ok=True)
    with (home / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataRefused(
                f"another `lockgate data prepare data={name}` is at work in {home}. Wait for it."
            ) from None
        for stale in home.glob(f"{STAGING}*"):
            remove(stale)
        staged = home / f"{STAGING}{os.getpid()}"
        staged.mkdir()
        try:
            yield staged
        finally:
            remove(staged)


def publish(staged: Path, lineage: DatasetLineage) -> Published:
    """Make the folder `staged` the current dataset; `lineage.digest` names its folder.

    A dataset with this digest that is already there and intact is kept, and the state is
    `unchanged` when it was also the current one. Afterwards the folder is read-only.
    """
    home = staged.parent
    target = home / short(lineage.digest)
    was_current = _points_at(home) == target.name
    if target.exists() and _intact(target):
        state = "unchanged" if was_current else "published"
        switch(home, target.name)
        return Published(lineage.name, target, lineages.read_lineage(target), state)
    (staged / lineages.FILE).write_bytes(canonical_json(lineage.as_dict()))
    seal_tree(staged)
    if target.exists():  # same digest in its lineage, other bytes on disk: it was damaged
        target.rename(home / f"{STAGING}damaged-{target.name}")
    staged.rename(target)
    sync_path(home)
    switch(home, target.name)
    for damaged in home.glob(f"{STAGING}damaged-*"):
        remove(damaged)
    return Published(lineage.name, target, lineage, "published")


def switch(home: Path, target: str) -> None:
    """Point `home/current` at the folder `target` in one step: a reader sees the old or the new."""
    if _points_at(home) == target:
        return
    link = home / f"{STAGING}current-{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(target)
    link.replace(home / "current")
    sync_path(home)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, read-only or not; nothing there is fine."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        for folder in [path, *(child for child in path.rglob("*") if child.is_dir())]:
            folder.chmod(0o755)
        shutil.rmtree(path)


def _points_at(home: Path) -> str | None:
    link = home / "current"
    return str(link.readlink()) if link.is_symlink() else None


def _intact(dataset: Path) -> bool:
    try:
        lineages.verify_dataset(dataset)
    except DataRefused:
        return False
    return True
