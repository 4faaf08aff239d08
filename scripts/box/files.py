"""Put generated folders and files where they belong, touching nothing that is already right."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterable
from pathlib import Path

from scripts.box.program import File, Folder
from serving.artifact.durable import replace_file


def ensure_folders(folders: Iterable[Folder]) -> None:
    """Make the folders, parents first, with their owners and modes."""
    for folder in folders:
        folder.path.mkdir(parents=True, exist_ok=True)
        ensure_owner(folder.path, folder.owner, folder.group, folder.mode)


def ensure_files(files: Iterable[File]) -> list[Path]:
    """Write what differs, atomically; returns the paths whose text changed."""
    changed = []
    for file in files:
        if not file.path.is_file() or file.path.read_text() != file.text:
            write_atomically(file.path, file.text.encode(), file.owner, file.group, file.mode)
            changed.append(file.path)
        else:
            ensure_owner(file.path, file.owner, file.group, file.mode)
    return changed


def write_atomically(path: Path, data: bytes, owner: str, group: str, mode: int) -> None:
    """Write `data` so that a reader sees the old file or the new one, and a crash leaves one."""
    replace_file(path, data, mode, _ids(owner, group))


def ensure_owner(path: Path, owner: str, group: str, mode: int) -> None:
    """Give `path` its owner, group and mode where they differ."""
    uid, gid = _ids(owner, group)
    now = path.stat()
    if (now.st_uid, now.st_gid) != (uid, gid):
        os.chown(path, uid, gid)
    if now.st_mode & 0o7777 != mode:
        path.chmod(mode)


def hand_over(folder: Path, user: str) -> None:
    """Give `user` everything below `folder` that an older site left to another identity."""
    uid, gid = _ids(user, user)
    for path in folder.rglob("*"):
        if path.lstat().st_uid != uid:
            os.chown(path, uid, gid, follow_symlinks=False)


def _ids(owner: str, group: str) -> tuple[int, int]:
    return pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid
