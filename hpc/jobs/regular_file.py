"""Reading of files that somebody else's job wrote, without waiting and without end.

A name in a run's folder may be a pipe, which blocks who opens it, a folder, or a file of any size.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


class NotRegularFile(OSError):
    """Something else stands under the file's name, or the file is too large."""


def open_regular_file(path: Path) -> BinaryIO:
    """`path`, open to be read. Raises OSError, `NotRegularFile` for a pipe, folder or device."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(handle, "rb")
    os.close(handle)
    reason = os.strerror(errno.EISDIR) if stat.S_ISDIR(mode) else "it is no regular file"
    raise NotRegularFile(errno.EISDIR, reason, str(path))


def read_regular_file(path: Path, limit_bytes: int) -> bytes:
    """The content of `path`. Raises as `open_regular_file` does, and for a larger one."""
    with open_regular_file(path) as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise NotRegularFile(errno.EFBIG, f"it is larger than {limit_bytes >> 10} KiB", str(path))
    return data
