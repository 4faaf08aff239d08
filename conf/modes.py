"""Modes of what one identity writes and another reads: runs, candidates, datasets.

A person's umask says how private their own files are; 077 would lock the release out of a run, and
000 would let everybody write into it. So neither decides here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

UMASK = 0o022


def share_new_files() -> None:
    """From now on, make files of this process and its children 0644 and folders 0755."""
    os.umask(UMASK)


@contextmanager
def sharing_new_files() -> Iterator[None]:
    """The same inside the block, in all threads; afterwards the person's umask counts again."""
    before = os.umask(UMASK)
    try:
        yield
    finally:
        os.umask(before)
