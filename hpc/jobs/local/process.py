"""Processes of the local executor, by pid and start time, since pids are used again."""

from __future__ import annotations

from pathlib import Path


def started_ticks(pid: int) -> int | None:
    """Start of the process in clock ticks since boot; None when it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The second field is the program's name in parentheses, and may hold any bytes.
    after_name = stat.rpartition(b")")[2].split()
    state, started = after_name[0], int(after_name[19])
    return None if state in (b"Z", b"X") else started


def is_running(pid: int, started: int | None) -> bool:
    """True while the process `pid` that started at `started` (clock ticks since boot) runs."""
    return started is not None and started_ticks(pid) == started
