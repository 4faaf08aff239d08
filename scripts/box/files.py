"""Put generated folders and files where they belong, touching nothing that is already right."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterable
from pathlib import Path

from scripts.box.program import File, Folder


def ensure_folders(folders: Iterable[Folder]) -> None:
    """Make the folders, parents first, with their owners and modes."""
    for folder in folders:
        folder.path.mkdir(parents=True, exist_ok=True)
        _own(folder.path, folder.owner, folder.group, folder.mode)


def ensure_files(files: Iterable[File]) -> list[Path]:
    """Write what differs, atomically; returns the paths whose text changed."""
    changed = []
    for file in files:
        if not file.path.is_file() or file.path.read_text() != file.text:
            write_atomically(file.path, file.text.encode(), file.owner, file.group, file.mode)
            changed.append(file.path)
        else:
            _own(file.path, file.owner, file.group, file.mode)
    return changed


def write_atomically(path: Path, data: bytes, owner: str, group: str, mode: int) -> None:
    """Write `data` so that a reader sees the old file or the new one, and a crash leaves one."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    _own(partial, owner, group, mode)
    partial.rename(path)


def _own(path: Path, owner: str, group: str, mode: int) -> None:
    uid, gid = pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid
    now = path.stat()
    if (now.st_uid, now.st_gid) != (uid, gid):
        os.chown(path, uid, gid)
    if now.st_mode & 0o7777 != mode:
        path.chmod(mode)
