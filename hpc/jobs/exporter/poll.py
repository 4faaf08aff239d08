"""One poll of Slurm for Prometheus: jobs and nodes by state, and where running jobs serve metrics.

A collector that failed has no series at all in this poll, so that a broken Slurm never looks idle.
No job id and no run name becomes a label of these series; runs are labels of their own targets.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conf.names import printable, shown
from hpc.jobs.errors import SpecChanged
from hpc.jobs.exporter.target import ADDRESSES, is_own_target, own_hosts, parse_addresses
from hpc.jobs.local import backend as local_backend
from hpc.jobs.run.faults import RunFaults, check_runs
from hpc.jobs.run.files import TargetFile, read_record, read_run_file
from hpc.jobs.run.folder import Run, all_runs
from hpc.jobs.run.states import CANCELLED, FAILED, FINISHED
from hpc.jobs.slurm.backend import OURS
from hpc.jobs.slurm.jobs import SQUEUE, SlurmJob, parse_squeue, wanted_job
from hpc.jobs.slurm.nodes import OTHER, SINFO, parse_nodes

log = logging.getLogger(__name__)

# Always there, at 0 if need be: a series that appears with its first job loses that job's increase.
JOB_STATES = ("pending", "configuring", "running", "completing", "suspended")

Query = Callable[[Sequence[str]], str]


@dataclass(frozen=True)
class CollectorHealth:
    """Outcome of one collector's polls; times are seconds since the epoch."""

    success: bool
    last_success: float | None
    seconds: float


@dataclass(frozen=True)
class QueueSnapshot:
    """The result of one poll; None where its collector failed."""

    jobs: Mapping[tuple[str, str], int] | None = None  # (partition, state) -> count
    nodes: Mapping[str, int] | None = None  # state -> count
    targets: Sequence[Mapping[str, Any]] = ()  # Prometheus http_sd groups
    runs: Mapping[str, RunFaults] = field(default_factory=dict)  # by name
    addresses: Mapping[str, str] = field(default_factory=dict)  # node -> NodeAddr
    health: Mapping[str, CollectorHealth] = field(default_factory=dict)


def poll_slurm(
    before: QueueSnapshot, query: Query, runs: Path, clock: Callable[[], float] = time.time
) -> QueueSnapshot:
    """Poll Slurm once. `query` runs a command and raises a `JobError` when it fails."""
    health: dict[str, CollectorHealth] = {}

    def collect(name: str, collector: Callable[[], Any]) -> Any:
        began = clock()
        last = before.health[name].last_success if name in before.health else None
        try:
            value = collector()
        except Exception as error:  # noqa: BLE001  one collector's failure ends no other
            log.warning("%s: %s", name, error or type(error).__name__)
            health[name] = CollectorHealth(False, last, clock() - began)
            return None
        health[name] = CollectorHealth(True, clock(), clock() - began)
        return value

    nodes = collect("nodes", lambda: parse_nodes(query(SINFO)))
    queue = collect("jobs", lambda: jobs_in_queue(parse_squeue(query(SQUEUE))))
    faults = collect("runs", lambda: check_runs(all_runs(runs), before.runs))
    log_new_faults(before.runs, faults or {})
    found = collect("addresses", lambda: parse_addresses(query(ADDRESSES)))
    addresses = before.addresses if found is None else found
    targets = collect("targets", lambda: find_targets(runs, queue, addresses, before.targets))
    partitions = set() if nodes is None else nodes[1]
    return QueueSnapshot(
        jobs=None if queue is None else count_jobs(queue, partitions),
        nodes=None if nodes is None else nodes[0],
        # An empty list would end every series; Prometheus only keeps the old one on an error.
        targets=before.targets if targets is None else targets,
        runs=before.runs if faults is None else faults,
        addresses=addresses,
        health=health,
    )


def log_new_faults(before: Mapping[str, RunFaults], now: Mapping[str, RunFaults]) -> None:
    """Log each run that became broken, or otherwise broken, once."""
    for name, found in now.items():
        known = before.get(name)
        if found.reasons and (known is None or known.reasons != found.reasons):
            log.warning("run %s is broken: %s", shown(name), printable("; ".join(found.reasons)))


def jobs_in_queue(jobs: Sequence[SlurmJob]) -> list[SlurmJob]:
    """Without the jobs that ended, which `squeue --json` lists for a while."""
    return [job for job in jobs if OURS.get(job.state) not in (FINISHED, FAILED, CANCELLED)]


def count_jobs(jobs: Sequence[SlurmJob], partitions: set[str]) -> dict[tuple[str, str], int]:
    """Jobs by partition and state, with a zero for every common state.

    A pending job may name several partitions; it is counted in the first.
    """
    rows = [(job.partition.split(",")[0], job.state.lower()) for job in jobs]
    count = Counter(
        (partition, state if state in JOB_STATES else OTHER) for partition, state in rows
    )
    every = partitions | {partition for partition, _ in rows}
    return {
        (partition, state): count[partition, state]
        for partition in sorted(every)
        for state in (*JOB_STATES, OTHER)
    }


def find_targets(
    runs: Path,
    queue: Sequence[SlurmJob] | None,
    addresses: Mapping[str, str],
    before: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """http_sd groups of the runs that serve metrics now, each at its own job's node.

    `queue` is Slurm's, or None when it did not answer: then a Slurm run stays a target where it was
    one `before`. A file that a killed job left behind is no target, nor is one that cannot be read
    or that names another host or a daemon's port.
    """
    running = None
    if queue is not None:
        running = [job for job in queue if job.state == "RUNNING"]
    groups = []
    for run in all_runs(runs):
        target = read_run_file(TargetFile, run.target).value
        if target is None or not _is_alive(run, running):
            continue
        try:
            task = run.spec.task
        except SpecChanged:
            continue  # not a run that we submitted as it is; its job refuses it too
        group = {"targets": [target.target], "labels": {"run": run.name, "task": task}}
        if is_own_target(target.target, own_hosts(run, queue or (), addresses)) or (
            queue is None and group in before
        ):
            groups.append(group)
    return groups


def _is_alive(run: Run, running: Sequence[SlurmJob] | None) -> bool:
    record = read_record(run)
    if record.kind == local_backend.KIND:
        return local_backend.job_is_alive(record.job)
    wanted = wanted_job(record)
    return running is None or any(map(wanted.matches, running))
