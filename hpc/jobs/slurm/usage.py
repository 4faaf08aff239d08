"""Memory that a run's job used, from Slurm's accounting: sacct, where the site has it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hpc.jobs.slurm.commands import query

SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)([KMGTP]?)")
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}


def rank_memory_bytes(
    job_id: str, user: str, name: str, variables: Mapping[str, str]
) -> int | None:
    """The largest memory of any rank of the job in any attempt; None where sacct has none.

    Raises `SchedulerUnavailable`.
    """
    command = ["sacct", "--duplicates", "--noheader", "--parsable2", f"--user={user}"]
    command += [f"--jobs={job_id}", "--format=JobID,MaxRSS,JobName%256"]
    return parse_memory(query(command, variables), job_id, name)


def parse_memory(text: str, job_id: str, name: str) -> int | None:
    """The largest MaxRSS in lines of `JobID|MaxRSS|JobName`, in bytes.

    None without one, and where the job of that id has another name than the run's: ids are given
    out again when a controller's state is lost.
    """
    rows = [[*line.split("|", 2), "", ""][:3] for line in text.split("\n") if line]
    names = {found for row_id, _, found in rows if row_id == job_id}
    if names != {name}:
        return None
    sizes = [
        float(match[1]) * UNITS[match[2]]
        for row_id, size, _ in rows
        if row_id.startswith(f"{job_id}.") and (match := SIZE.fullmatch(size.strip()))
    ]
    return int(max(sizes)) or None if sizes else None
