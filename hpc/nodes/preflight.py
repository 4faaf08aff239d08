"""Preflight: the checks of every node at an attempt's start, at most cluster.preflight_s long.

A node that is not fit ends the attempt before a step was lost: its report names the fault, the job
is requeued, and the next attempt is started without the node where enough others are left.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from conf.errors import ConfigError
from hpc.jobs.rank.rendezvous import Rank
from hpc.jobs.run.folder import Run
from hpc.jobs.slurm.limits import check_size
from hpc.jobs.spec.config import ClusterConfig
from hpc.nodes.checks import (
    SCRATCH_FREE_BYTES,
    SHM_FREE_BYTES,
    TOGETHER,
    NodeCheck,
    check_devices,
    check_folder,
    check_product,
    check_shared_storage,
)
from hpc.nodes.report import NodeReport, node_name, write_report
from serving.artifact.durable import replace_file

log = logging.getLogger(__name__)
SHM = Path("/dev/shm")
Step = Callable[[], list[NodeCheck]]


@dataclass(frozen=True)
class NodeNeeds:
    """The things that training needs of each node, and the time to look at them."""

    gpus: int
    scratch: Path
    shared: Path
    """A folder of the shared storage."""
    limit_s: float


def preflight(run: Run, cluster: ClusterConfig, rank: Rank) -> str:
    """Check this rank's node, on every rank of an attempt: the fault as a sentence, or nothing.

    The report is in the run's folder: of the first rank on each node, and of any that found a
    fault. A rank that finds one leaves the others waiting; srun ends them when it ends.
    """
    if not cluster.preflight_s:
        return ""
    needs = NodeNeeds(
        cluster.gpus_per_node, Path(cluster.scratch), run.folder, cluster.preflight_s
    )  # fmt: skip
    report = check_node(needs, rank)
    if rank.local_rank == 0 or report.faults:
        _write(run, report)
    if report.faults:
        log.error("lockgate: %s", report.sentence)
        if any(check.fault for check in report.checks if check.name != TOGETHER):
            _exclude(run, cluster, report.node)
    elif rank.rank == 0:
        log.info("node %s is fit: %s", report.node, report.values)
    return report.sentence


def check_node(needs: NodeNeeds, rank: Rank) -> NodeReport:
    """The checks of this rank's node, up to the first fault; called on every rank of a job.

    The ranks' variables (RANK, WORLD_SIZE, ...) are in the environment.
    """
    began = time.monotonic()
    checks: list[NodeCheck] = []
    for step in _steps(needs, rank):
        left_s = max(began + needs.limit_s - time.monotonic(), 0.1)
        found = _within(left_s, step)
        if found is None:
            after = f"after {checks[-1].name}" if checks else "in the first check"
            fault = f"its checks took longer than {needs.limit_s:g} s ({after})"
            found = [NodeCheck("time", f"above {needs.limit_s:g} s", fault)]
        checks += found
        if any(check.fault for check in found):
            break
    seconds = round(time.monotonic() - began, 3)
    return NodeReport(node_name(), rank.attempt, rank.rank, seconds, checks)


def _steps(needs: NodeNeeds, rank: Rank) -> Iterator[Step]:
    """The checks in order: those of the node alone on its first rank, then those on every rank."""
    if rank.local_rank == 0:
        yield lambda: [check_devices(needs.gpus, os.environ)]
        yield lambda: [check_folder("scratch", needs.scratch, SCRATCH_FREE_BYTES)]
        yield lambda: [check_folder("shared memory", SHM, SHM_FREE_BYTES)]
        yield lambda: list(check_shared_storage(needs.shared))
    speed = 0.0

    def product() -> list[NodeCheck]:
        nonlocal speed
        check, speed = check_product(rank.local_rank)
        return [check]

    def together() -> list[NodeCheck]:
        from hpc.nodes.collective import check_collective  # torch.distributed: in the job only

        try:
            return list(check_collective(speed, needs.limit_s))
        except (RuntimeError, OSError) as error:
            fault = f"the ranks did not meet: {str(error).splitlines()[0]}"
            return [NodeCheck(TOGETHER, "failed", fault)]

    yield product
    yield together


def _within(seconds: float, step: Step) -> list[NodeCheck] | None:
    """The checks of `step`; None where it takes longer: a folder of a dead server hangs for ever.

    Raises what the step raises.
    """
    done: list[list[NodeCheck]] = []
    raised: list[BaseException] = []

    def work() -> None:
        try:
            done.append(step())
        except BaseException as error:  # noqa: BLE001  raised again in the thread that waits
            raised.append(error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(seconds)
    if raised:
        raise raised[0]
    return done[0] if done else None


def _write(run: Run, report: NodeReport) -> None:
    try:
        write_report(run, report)
    except OSError as error:  # the storage is the fault that it would report
        log.error("the report of node %s was not written: %s", report.node, error)


def _exclude(run: Run, cluster: ClusterConfig, name: str) -> None:
    """Have the job started without the node from now on, unless too few would be left."""
    path = run.excluded_nodes
    try:
        before = path.read_text().strip() if path.exists() else cluster.exclude or ""
        excluded = ",".join(filter(None, [before, name]))
        if cluster.kind == "slurm":
            check_size(replace(cluster, exclude=excluded), os.environ)
            replace_file(path, f"{excluded}\n")
    except ConfigError as error:
        log.info("node %s may be used again: %s", name, error)
    except OSError as error:
        log.error("node %s is not excluded: %s", name, error)
