"""Durable writes: files and folders that appear whole, and are on the disk when the call returns.

The only place where Lockgate calls fsync or renames over a file. Standard library only.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path


def sync_path(path: Path) -> None:
    """fsync a file, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """fsync every file and folder below `folder` and itself, files before the names of them."""
    for root, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync_path(Path(root, name))
        sync_path(Path(root))


def seal_tree(folder: Path) -> None:
    """Make a tree durable, as `sync_tree` does, and read-only: files 0444, folders 0555."""
    for root, _, files in os.walk(folder, topdown=False):
        for name in files:
            path = Path(root, name)
            sync_path(path)
            path.chmod(0o444)
        sync_path(Path(root))
        Path(root).chmod(0o555)


def replace_file(
    path: Path,
    content: bytes | str,
    mode: int = 0o644,
    owner: tuple[int, int] | None = None,
    durable: bool = True,
) -> None:
    """Write `content` (text as UTF-8) to `path` with `mode`: the old file or the new, never a part.

    `owner` is (uid, gid), set before the file has its name; None keeps the caller's. `durable`
    False leaves out fsync, for content that a power cut may take. Raises OSError; `path` is then
    as it was.
    """
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            if owner is not None:
                os.fchown(file.fileno(), *owner)
            os.fchmod(file.fileno(), mode)
            if durable:
                os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if durable:
        sync_path(path.parent)


def append_line(path: Path, line: str) -> None:
    """Append `line` and a line end to `path`, durable on return.

    A torn last line, of a writer that was killed, is ended first, so that it spoils no other.
    """
    data = line.encode() + b"\n"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            data = b"\n" + data
        os.write(handle, data)
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_folder(staged: Path, target: Path) -> None:
    """Put the folder `staged`, made durable here, in place of `target`, which may not exist.

    Both lie in one folder. Killed between the two renames `target` is missing and its old content
    stands beside it as `.<name>-replaced-<pid>`; a failure before them leaves it as it was.
    """
    sync_tree(staged)
    replaced = target.with_name(f".{target.name}-replaced-{os.getpid()}")
    shutil.rmtree(replaced, ignore_errors=True)
    if target.exists():
        target.rename(replaced)
    staged.rename(target)
    sync_path(target.parent)
    shutil.rmtree(replaced, ignore_errors=True)
