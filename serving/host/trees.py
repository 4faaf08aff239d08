"""Folders of packages on a host: copied without following a link, removed though read-only."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from serving.host.errors import HostRefusal

_MAX_DEPTH = 16
_MAX_ENTRIES = 20_000


def copy_tree(source: Path, target: Path, file_mode: int = 0o644, folder_mode: int = 0o755) -> None:
    """Copy the folder `source` to `target`, which may not exist, as files of our own.

    Another identity may change `source` meanwhile, so no link is followed, and whatever is copied
    is verified where it then stands. A link is copied as the link that it is, for the verifier to
    name. Raises HostRefusal("odd-file") for what is neither file, folder nor link, or too many.
    """
    handle = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _copy(handle, target, file_mode, folder_mode, _Budget(), 0)
    finally:
        os.close(handle)


def remove_tree(folder: Path) -> None:
    """Remove a tree of ours that may be read-only; nothing where nothing is. Raises OSError."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        folder.unlink()
        return
    if not folder.exists():
        return
    for path, _, _ in os.walk(folder):
        status = Path(path).lstat()
        if status.st_mode & 0o700 != 0o700 and status.st_uid == os.geteuid():
            Path(path).chmod(status.st_mode | 0o700)
    shutil.rmtree(folder)


class _Budget:
    def __init__(self) -> None:
        self.entries = 0

    def take(self) -> None:
        self.entries += 1
        if self.entries > _MAX_ENTRIES:
            raise HostRefusal("odd-file", f"the package has more than {_MAX_ENTRIES} entries")


def _copy(
    source: int, target: Path, file_mode: int, folder_mode: int, budget: _Budget, depth: int
) -> None:
    if depth > _MAX_DEPTH:
        raise HostRefusal("odd-file", f"the package is deeper than {_MAX_DEPTH} folders")
    target.mkdir()
    target.chmod(folder_mode)
    for name in sorted(os.listdir(source)):
        budget.take()
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            (target / name).symlink_to(os.readlink(name, dir_fd=source))
        elif stat.S_ISDIR(status.st_mode):
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            inner = os.open(name, flags, dir_fd=source)
            try:
                _copy(inner, target / name, file_mode, folder_mode, budget, depth + 1)
            finally:
                os.close(inner)
        elif stat.S_ISREG(status.st_mode):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            reading = os.open(name, flags, dir_fd=source)
            with os.fdopen(reading, "rb") as content, (target / name).open("xb") as copied:
                shutil.copyfileobj(content, copied, 1 << 20)
            (target / name).chmod(file_mode)
        else:
            raise HostRefusal("odd-file", f"{name!a} is a device, pipe or socket")
