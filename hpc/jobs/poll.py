"""One look at Slurm for Prometheus: jobs and nodes by state, and where running jobs serve metrics.

A collector that failed has no series at all in this look, so that a broken Slurm never looks idle.
No job id and no run name becomes a label of these series; runs are labels of their own targets.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc.jobs.errors import JobError, SpecMoved
from hpc.jobs.marker import read_marker
from hpc.jobs.process import is_running
from hpc.jobs.run import Run, all_runs

SQUEUE = ("squeue", "--noheader", "--format=%P|%T|%j")
SINFO = ("sinfo", "--noheader", "--Node", "--format=%N|%T|%R")
# Always there, at 0 if need be: a series that appears with its first job loses that job's increase.
JOB_STATES = ("pending", "configuring", "running", "completing", "suspended")
NODE_STATES = ("idle", "mixed", "allocated", "completing", "draining", "drained", "down")
OTHER = "other"

Ask = Callable[[Sequence[str]], str]


@dataclass(frozen=True)
class Health:
    """How one collector fared; times are seconds since the epoch."""

    success: bool
    last_success: float | None
    seconds: float


@dataclass(frozen=True)
class Look:
    """What one poll saw; None where its collector failed."""

    jobs: Mapping[tuple[str, str], int] | None = None  # (partition, state) -> count
    nodes: Mapping[str, int] | None = None  # state -> count
    targets: Sequence[Mapping[str, Any]] = ()  # Prometheus http_sd groups
    health: Mapping[str, Health] = field(default_factory=dict)


def look(before: Look, ask: Ask, runs: Path, clock: Callable[[], float] = time.time) -> Look:
    """Poll Slurm once. `ask` runs a command and raises a `JobError` when it fails."""
    health: dict[str, Health] = {}

    def collect(name: str, read: Callable[[], Any]) -> Any:
        began = clock()
        last = before.health[name].last_success if name in before.health else None
        try:
            value = read()
        except (JobError, ValueError, OSError) as error:
            print(f"lockgate-slurm-exporter: {name}: {error}", flush=True)
            health[name] = Health(False, last, clock() - began)
            return None
        health[name] = Health(True, clock(), clock() - began)
        return value

    nodes = collect("nodes", lambda: parse_nodes(ask(SINFO)))
    queue = collect("jobs", lambda: parse_jobs(ask(SQUEUE)))
    names = None if queue is None else {name for _, state, name in queue if state == "running"}
    targets = collect("targets", lambda: find_targets(runs, names))
    partitions = set() if nodes is None else nodes[1]
    return Look(
        jobs=None if queue is None else count_jobs(queue, partitions),
        nodes=None if nodes is None else nodes[0],
        # An empty list would end every series; Prometheus only keeps the old one on an error.
        targets=before.targets if targets is None else targets,
        health=health,
    )


def parse_jobs(text: str) -> list[tuple[str, str, str]]:
    """(partition, state in lower case, job name) per line of `%P|%T|%j`."""
    rows = []
    for line in text.splitlines():
        if line.strip():
            partition, state, name = line.split("|", 2)
            # A pending job may name several partitions; it is counted once.
            rows.append((partition.split(",")[0], state.strip().lower(), name))
    return rows


def parse_nodes(text: str) -> tuple[dict[str, int], set[str]]:
    """Nodes by state, and the partitions, of `%N|%T|%R` lines (one per node and partition)."""
    states: dict[str, str] = {}
    partitions = set()
    for line in text.splitlines():
        if line.strip():
            node, state, partition = line.split("|", 2)
            # Slurm marks states: `down*` does not answer, `idle~` is powered off, `drained$` ...
            states[node] = state.strip().rstrip("*~#!%$@^-+").lower()
            partitions.add(partition.strip())
    count = Counter(state if state in NODE_STATES else OTHER for state in states.values())
    return {state: count[state] for state in (*NODE_STATES, OTHER)}, partitions


def count_jobs(
    rows: Sequence[tuple[str, str, str]], partitions: set[str]
) -> dict[tuple[str, str], int]:
    """Jobs by partition and state, with a zero for every common state."""
    count = Counter(
        (partition, state if state in JOB_STATES else OTHER) for partition, state, _ in rows
    )
    every = partitions | {partition for partition, _, _ in rows}
    return {
        (partition, state): count[partition, state]
        for partition in sorted(every)
        for state in (*JOB_STATES, OTHER)
    }


def find_targets(runs: Path, running: set[str] | None) -> list[dict[str, Any]]:
    """http_sd groups of the runs that serve metrics now.

    `running` are the names of Slurm's running jobs; None when Slurm did not say, and then a run's
    own word is taken. A file that a killed job left behind is no target.
    """
    groups = []
    for run in all_runs(runs):
        target = read_marker(run.target).get("target")
        if not isinstance(target, str) or not _is_alive(run, running):
            continue
        try:
            task = run.spec.task
        except SpecMoved:
            continue  # not a run that we submitted as it is; its job refuses it too
        groups.append({"targets": [target], "labels": {"run": run.name, "task": task}})
    return groups


def _is_alive(run: Run, running: set[str] | None) -> bool:
    job = read_marker(run.job)
    if job.get("kind") == "local":
        return is_running(int(job["job_id"]), job.get("process_started"))
    return running is None or run.name in running
