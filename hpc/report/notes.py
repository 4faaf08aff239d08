"""Notes on runs from outside their folders: Slurm's accounting, and today's configs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from conf import ConfigError
from hpc.jobs.errors import SchedulerUnavailable
from hpc.jobs.slurm import backend
from hpc.jobs.slurm.usage import rank_memory_bytes
from hpc.jobs.spec.command_line import train_words
from hpc.report.reported_run import ReportedRun

MOST_ASKED = 20
"""Runs that are asked about: an answer takes a tenth of a second, and a page may hold 200."""


@dataclass(frozen=True)
class ReportNotes:
    """By the run's name; each may lack a run."""

    commands: Mapping[str, str] = field(default_factory=dict)
    """A line for a shell that submits the same config again."""
    memory_bytes: Mapping[str, int] = field(default_factory=dict)
    """The most that a rank used."""


def report_notes(runs: Sequence[ReportedRun]) -> ReportNotes:
    """The notes on the first `MOST_ASKED` of `runs`; a cluster that does not answer adds none."""
    asked = runs[:MOST_ASKED]
    return ReportNotes(repeat_commands(asked), _memory_bytes(asked))


def repeat_commands(runs: Sequence[ReportedRun]) -> dict[str, str]:
    """A line for a shell by the run's name; without a run whose config no line of today gives."""
    lines: dict[str, str] = {}
    for run in runs:
        with suppress(ConfigError):
            if run.spec is not None:
                lines[run.name] = shlex.join(["lockgate", "train", *train_words(run.spec)])
    return lines


def _memory_bytes(runs: Sequence[ReportedRun]) -> dict[str, int]:
    found: dict[str, int] = {}
    silent: set[str] = set()
    for run in runs:
        job, conf = run.record.job, run.record.slurm_conf
        if job is None or job.kind != backend.KIND or conf in silent:
            continue
        variables = {"SLURM_CONF": conf} if conf else {}
        try:
            most = rank_memory_bytes(job.job_id, job.user, run.record.job_name, variables)
        except SchedulerUnavailable:
            silent.add(conf)
            continue
        if most is not None:
            found[run.name] = most
    return found
