"""Waiting and running jobs of a queue from `squeue --json`, and the ones that hold another back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from conf.names import shown
from hpc.jobs.slurm.arrays import record_ids

NAMED = 3
"""Blocking jobs that are named; the others are counted."""


@dataclass(frozen=True)
class QueuedJob:
    """A job of the queue. Times are seconds since 1970, 0 where Slurm has none."""

    job_id: str
    name: str
    user: str
    state: str
    reason: str = ""
    description: str = ""
    """Slurm's sentence beside the reason, such as the nodes that are not available."""
    partition: str = ""
    """Several with commas for a pending job."""
    priority: int = 0
    submitted_s: int = 0
    eligible_s: int = 0
    start_s: int = 0
    """Start of a running job; of a pending one the start that Slurm expects (squeue --start)."""
    end_s: int = 0
    dependency: str = ""
    expected_nodes: str = ""
    nodes: str = ""
    """Nodes that it was given, as in n[1-3]."""
    restarts: int = 0
    task_ids: tuple[str, ...] = ()
    """The tasks of an array, as in 12_3, that it stands for: all that are pending, or one."""


def parse_queued_jobs(text: str) -> list[QueuedJob]:
    """The jobs of `squeue --json`; a record without id, name or state is left out.

    Raises ValueError when the text is no such document.
    """
    try:
        document = json.loads(text, strict=False)
    except RecursionError:
        raise ValueError("squeue --json printed what is nested too deep") from None
    if not isinstance(document, dict) or not isinstance(document.get("jobs"), list):
        raise ValueError("squeue --json printed no list of jobs")
    return [job for record in document["jobs"] if (job := _job(record))]


def blocking(job: QueuedJob, jobs: Sequence[QueuedJob], clock: Callable[[int], str]) -> list[str]:
    """Sentences on the jobs that hold `job` back; `clock` words a time in seconds since 1970."""
    sentences = []
    if dependency := _plain(job.dependency):
        sentences.append(f"it depends on {shown(dependency)}")
    if job.reason == "Dependency":
        return sentences
    ahead = sorted(_ahead(job, jobs), key=lambda one: -one.priority)
    if job.reason in ("Priority", "Resources") and ahead:
        sentences.append(f"{_count(ahead)} before it in the queue: {_named(ahead)}")
    running = sorted(_running(job, jobs), key=lambda one: one.end_s or 1 << 62)
    if job.reason in ("Priority", "Resources") and running:
        first, where = running[0], f"running in {shown(job.partition)}"
        ends = f"; {first.job_id} ends by {clock(first.end_s)}" if first.end_s else ""
        sentences.append(f"{_count(running)} {where}: {_named(running)}{ends}")
    return sentences


def _ahead(job: QueuedJob, jobs: Sequence[QueuedJob]) -> list[QueuedJob]:
    """Pending jobs of a shared partition that Slurm starts first and may start at all."""
    return [
        one
        for one in jobs
        if one.state == "PENDING"
        and one.job_id != job.job_id
        and one.reason in ("Priority", "Resources", "")
        and _partitions(one) & _partitions(job)
        and (-one.priority, one.submitted_s, int(one.job_id))
        < (-job.priority, job.submitted_s, int(job.job_id))
    ]


def _running(job: QueuedJob, jobs: Sequence[QueuedJob]) -> list[QueuedJob]:
    states = ("RUNNING", "COMPLETING", "SUSPENDED", "CONFIGURING")
    return [one for one in jobs if one.state in states and _partitions(one) & _partitions(job)]


def _partitions(job: QueuedJob) -> set[str]:
    return set(job.partition.split(","))


def _count(jobs: Sequence[QueuedJob]) -> str:
    return "1 job" if len(jobs) == 1 else f"{len(jobs)} jobs"


def _named(jobs: Sequence[QueuedJob]) -> str:
    """The first few, with their owners; a name is anybody's choice."""
    names = [f"{one.job_id} ({shown(one.name)} of {shown(one.user)})" for one in jobs[:NAMED]]
    return ", ".join(names) + (", ..." if len(jobs) > NAMED else "")


def _job(record: Any) -> QueuedJob | None:
    if not isinstance(record, dict):
        return None
    job_id, name, state = (record.get(key) for key in ("job_id", "name", "job_state"))
    if isinstance(state, list) and state:  # Slurm 23.11: the state, then flags
        state = state[-1]
    if type(job_id) is not int or not isinstance(name, str) or not isinstance(state, str):
        return None
    words = {key: _plain(record.get(key)) for key in (
        "user_name", "state_reason", "state_description", "partition", "dependency",
    )}  # fmt: skip
    numbers = {key: _number(record.get(key)) for key in (
        "priority", "submit_time", "eligible_time", "start_time", "end_time", "restart_cnt",
    )}  # fmt: skip
    return QueuedJob(
        job_id=str(job_id),
        name=name,
        user=words["user_name"],
        state=state,
        # Where squeue shows a sentence, some versions put it into the reason.
        reason=re.split(r"[\s,(]", words["state_reason"], maxsplit=1)[0],
        description=words["state_description"],
        partition=words["partition"],
        priority=numbers["priority"],
        submitted_s=numbers["submit_time"],
        eligible_s=numbers["eligible_time"],
        start_s=numbers["start_time"],
        end_s=numbers["end_time"],
        dependency=words["dependency"],
        expected_nodes=_plain(record.get("scheduled_nodes")),
        nodes=_plain(record.get("nodes")),
        restarts=numbers["restart_cnt"],
        task_ids=tuple(one for one in record_ids(record) if "_" in one),
    )


def _number(value: Any) -> int:
    """A count; Slurm 23.02 wraps it as {"set": true, "infinite": false, "number": 3}."""
    if isinstance(value, dict):
        value = value.get("number") if value.get("set") and not value.get("infinite") else 0
    return value if type(value) is int and 0 < value < 1 << 40 else 0


def _plain(value: Any) -> str:
    return value if isinstance(value, str) and value not in ("None", "(null)", "N/A") else ""
