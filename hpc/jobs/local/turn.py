"""A trial's turn in a sweep on this machine: one of N locks, held until the launcher ends.

The kernel gives a lock back when its process is gone, however it ended.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

POLL_S = 0.3


def wait_for_turn(folder: Path, parallel: int, ended: Callable[[], bool]) -> bool:
    """Wait for one of the `parallel` locks in `folder`, and keep it; false once `ended`."""
    folder.mkdir(parents=True, exist_ok=True)
    while not ended():
        if any(_take(folder / f"{number}.lock") for number in range(parallel)):
            return True
        time.sleep(POLL_S)
    return False


def _take(path: Path) -> bool:
    """Take the lock and leave its file open for as long as this process lives."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return False
    return True
