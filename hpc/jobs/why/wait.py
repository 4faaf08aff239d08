"""The wait of a Slurm run: its reason, the jobs before it, its expected start, and what fits now.

A part that Slurm does not answer is left out, with the reason; the others stand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from conf.errors import ConfigError
from hpc.jobs.errors import SchedulerUnavailable, SpecChanged
from hpc.jobs.run.files import RunRecord
from hpc.jobs.run.states import RunState
from hpc.jobs.slurm.commands import query
from hpc.jobs.slurm.jobs import SQUEUE
from hpc.jobs.slurm.nodes import NODE_POWER, booting_nodes
from hpc.jobs.spec.config import ClusterConfig, cluster_config
from hpc.jobs.why.accounting import DAYS, WAITS_FORMAT, WaitHistory, wait_history
from hpc.jobs.why.capacity import NODES, FreeNode, JobSize, free_nodes, largest_fitting
from hpc.jobs.why.explanation import Waiting
from hpc.jobs.why.queued_jobs import QueuedJob, blocking, parse_queued_jobs
from hpc.jobs.why.reasons import slurm_reason

PLACING = {"constraint", "nodelist", "reservation", "exclusive", "licenses", "gres", "contiguous"}
"""sbatch options that choose nodes: a free node may still not be one for the request."""
SIZE_MATTERS = ("Resources", "Priority", "None")
"""Reasons with which a smaller request would start earlier."""


def slurm_wait(
    record: RunRecord, state: RunState, keeps_ranks: bool, now: datetime
) -> tuple[Waiting, tuple[str, ...]]:
    """The wait of a run, and the parts that Slurm did not answer.

    `keeps_ranks`: the run has a checkpoint, which fits no other number of ranks.
    """
    variables = {"SLURM_CONF": record.slurm_conf} if record.slurm_conf else {}
    unanswered: list[str] = []
    jobs: list[QueuedJob] = []
    try:
        jobs = parse_queued_jobs(query(SQUEUE, variables))
    except (SchedulerUnavailable, ValueError) as error:
        unanswered.append(f"the queue: {error}")
    job = own_job(jobs, record, state)
    waiting = queue_wait(job, jobs, state, now)
    if job and job.state == "CONFIGURING" and job.nodes:
        try:
            booting = booting_nodes(query([*NODE_POWER, f"--nodes={job.nodes}"], variables))
            waiting = with_booting_nodes(waiting, booting)
        except SchedulerUnavailable as error:
            unanswered.append(f"its nodes: {error}")
    cluster = _cluster(record)
    if cluster is None:
        return waiting, (*unanswered, "its size: the spec cannot be read")
    partition = job.partition if job else cluster.partition or ""
    try:
        waiting = replace(waiting, history=_history(cluster, partition, variables))
    except SchedulerUnavailable as error:
        unanswered.append(f"earlier waits: {error}")
    if waiting.reason.word in SIZE_MATTERS and not PLACING & set(cluster.additional_parameters):
        try:
            room = _room(cluster, partition, variables)
            waiting = with_room(waiting, job_size(cluster), room, keeps_ranks)
        except SchedulerUnavailable as error:
            unanswered.append(f"the free nodes: {error}")
    return waiting, tuple(unanswered)


def own_job(jobs: Sequence[QueuedJob], record: RunRecord, state: RunState) -> QueuedJob | None:
    """The run's job, by id, name and user: any user may give a job any name."""
    wanted = (record.job_name, record.user)
    return next(
        (
            job
            for job in jobs
            if (job.name, job.user) == wanted and state.job_id in (job.job_id, *job.task_ids)
        ),
        None,
    )


def queue_wait(
    job: QueuedJob | None, jobs: Sequence[QueuedJob], state: RunState, now: datetime
) -> Waiting:
    """The wait as the queue alone shows it; from `state` where the job is not in `jobs`."""
    # Saved, and asked to go on: until Slurm has requeued it, it has the reason of its end.
    ending = "Cleaning" if state.source == "status.json" else ""
    if job is None:
        return Waiting(slurm_reason(ending or state.detail), "", state.submitted)
    made_ready = "Configuring" if job.state == "CONFIGURING" else ""
    reason = slurm_reason(ending or made_ready or job.reason)
    # Slurm plans no start for a job that may not begin yet, such as a requeued one.
    expected = job.start_s or job.eligible_s
    expected = expected if expected > now.timestamp() and not reason.never else 0
    return Waiting(
        reason=reason,
        detail=job.description,
        since=_iso(job.submitted_s) or state.submitted,
        blocked_by=tuple(blocking(job, jobs, local_time)),
        expected_start=_iso(expected),
        expected_nodes=job.expected_nodes if expected else "",
    )


def with_booting_nodes(waiting: Waiting, booting: Sequence[str]) -> Waiting:
    """`waiting` with the nodes that power saving is bringing up for the job named."""
    if not booting:
        return waiting
    who = f"node {booting[0]} is" if len(booting) == 1 else f"nodes {', '.join(booting)} are"
    meaning = f"Its nodes are chosen, and {who} being brought up."
    return replace(waiting, reason=replace(waiting.reason, meaning=meaning))


def with_room(
    waiting: Waiting, asked: JobSize, free: Sequence[FreeNode], keeps_ranks: bool
) -> Waiting:
    """`waiting` with the largest request that has room on the `free` nodes now."""
    size = largest_fitting(asked, free, asked.ranks if keeps_ranks else None)
    if size is None:
        return waiting
    return replace(waiting, fits_now=size == asked, smaller=size.overrides(asked))


def job_size(cluster: ClusterConfig) -> JobSize:
    """The size of a run's request."""
    return JobSize(
        nodes=cluster.nodes,
        tasks_per_node=cluster.tasks_per_node,
        cpus_per_task=cluster.cpus_per_task,
        gpus_per_node=cluster.gpus_per_node,
        memory_mb=round((cluster.mem_gb or 0) * 1024),
    )


def nodes_for(nodes: Sequence[FreeNode], partition: str, excluded: Sequence[str]) -> list[FreeNode]:
    """The nodes of a partition, or of several with commas (empty: of any), but the excluded."""
    wanted = set(filter(None, partition.split(",")))
    return [
        node
        for node in nodes
        if node.name not in excluded and (not wanted or node.partitions & wanted)
    ]


def local_time(seconds: int) -> str:
    """`11:27:47` on this day, `2026-11-28 11:27:47` on another, in local time."""
    time = datetime.fromtimestamp(seconds)
    return f"{time:%H:%M:%S}" if time.date() == datetime.now().date() else f"{time:%F %T}"


def _history(
    cluster: ClusterConfig, partition: str, variables: Mapping[str, str]
) -> WaitHistory | None:
    command = ["sacct", "--allusers", "--allocations", "--noheader", "--parsable2"]
    command += [f"--starttime=now-{DAYS}days", f"--format={WAITS_FORMAT}"]
    command += [f"--partition={partition}"] if partition else []
    return wait_history(
        query(command, variables), cluster.nodes, cluster.nodes * cluster.gpus_per_node
    )


def _room(cluster: ClusterConfig, partition: str, variables: Mapping[str, str]) -> list[FreeNode]:
    excluded: list[str] = []
    if cluster.exclude:  # a list such as n[1-3], which scontrol writes out
        excluded = query(["scontrol", "show", "hostnames", cluster.exclude], variables).split()
    return nodes_for(free_nodes(query(NODES, variables)), partition, excluded)


def _cluster(record: RunRecord) -> ClusterConfig | None:
    try:
        return cluster_config(record.run.spec.config)
    except (SpecChanged, ConfigError):
        return None


def _iso(seconds: int) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).isoformat() if seconds else None
