"""A process and all its descendants, another user's too, and their memory, from /proc (proc(5))."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def tree_bytes(pid: int) -> int:
    """Resident bytes of `pid` and its descendants that are no file's: RSS less its shared part.

    Pages that processes share after a fork count for each. A process that ends meanwhile counts 0.
    """
    return sum(map(_private_bytes, tree_pids(pid)))


def tree_pids(pid: int) -> Iterator[int]:
    """`pid` and its descendants, through the children of each thread."""
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        yield one
        waiting += [
            int(child)
            for listed in Path(f"/proc/{one}/task").glob("*/children")
            for child in _words(listed)
        ]


def command_words(pid: int) -> list[str]:
    """The words of the command line of `pid`; none once it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def _private_bytes(pid: int) -> int:
    words = _words(Path(f"/proc/{pid}/statm"))
    return (int(words[1]) - int(words[2])) * _PAGE_BYTES if words else 0


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []  # it has ended
