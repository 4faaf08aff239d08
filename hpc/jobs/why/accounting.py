"""Ended jobs from sacct: how long requests of a size waited."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from hpc.jobs.cause.job_end import sacct_time

DAYS = 3
"""Age of the oldest job from which waiting times are taken."""
ENOUGH = 3
"""Jobs of one size from which a typical wait is taken; with fewer, all of the partition count."""
WAITS_FORMAT = "JobID,Submit,Eligible,Start,NNodes,ReqTRES"
GPU_COUNT = re.compile(r"\bgres/gpu=(\d{1,6})\b", re.ASCII)


@dataclass(frozen=True)
class WaitHistory:
    """Waiting times of jobs of a partition that started in the last DAYS days."""

    jobs: int
    same_size: bool
    """True for jobs with as many nodes and GPUs alone."""
    median_s: int
    longest_s: int


@dataclass(frozen=True)
class _Waited:
    nodes: int
    gpus: int
    seconds: int


def wait_history(text: str, nodes: int, gpus: int) -> WaitHistory | None:
    """Waiting times in lines of WAITS_FORMAT, of jobs with so many `nodes` and `gpus` in all.

    None without a job that started. Odd lines are left out.
    """
    all_waits = list(_waits(text))
    alike = [one for one in all_waits if (one.nodes, one.gpus) == (nodes, gpus)]
    chosen = alike if len(alike) >= ENOUGH else all_waits
    if not chosen:
        return None
    seconds = [one.seconds for one in chosen]
    return WaitHistory(len(chosen), chosen is alike, round(median(seconds)), max(seconds))


def _waits(text: str) -> Iterator[_Waited]:
    for line in text.split("\n"):
        fields = line.split("|")
        if len(fields) != 6 or not fields[4].isdecimal():
            continue
        begin, start = sacct_time(fields[2]) or sacct_time(fields[1]), sacct_time(fields[3])
        if begin is None or start is None or start < begin:
            continue
        gpus = GPU_COUNT.search(fields[5])
        yield _Waited(int(fields[4]), int(gpus[1]) if gpus else 0, round(start - begin))
