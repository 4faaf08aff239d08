"""Processes of the local executor, by pid and start time, since pids are used again."""

from __future__ import annotations

import re
from pathlib import Path

RANK = re.compile(rb"(?:^|\0)SUBMITIT_LOCAL_GLOBALID=([0-9]{1,6})\0")
"""submitit's variable with the rank of a local process."""


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


def rank_processes(parent: int) -> dict[int, int]:
    """Rank -> pid of the running ranks that submitit's local controller `parent` has started."""
    found: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or started_ticks(int(entry.name)) is None:
            continue
        try:
            stat, variables = (entry / "stat").read_bytes(), (entry / "environ").read_bytes()
        except OSError:  # it has ended, or is another user's
            continue
        rank = RANK.search(variables)
        if rank and int(stat.rpartition(b")")[2].split()[1]) == parent:
            found[int(rank[1])] = int(entry.name)
    return found


def is_running(pid: int, started: int | None) -> bool:
    """True while the process `pid` that started at `started` (clock ticks since boot) runs."""
    return started is not None and started_ticks(pid) == started
