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
from dataclasses import replace
from pathlib import Path

from conf.errors import ConfigError
from hpc.jobs.rank.rendezvous import Rank
from hpc.jobs.run.folder import Run
from hpc.jobs.slurm.limits import check_size
from hpc.jobs.spec.config import ClusterConfig
from hpc.nodes.checks import (
    SCRATCH_FREE_BYTES,
    SHM_FREE_BYTES,
    NodeCheck,
    check_devices,
    check_folder,
    check_product,
    check_shared_storage,
)
from hpc.nodes.report import NodeReport, node_name, reports_folder, write_report
from serving.artifact.durable import replace_file

log = logging.getLogger(__name__)
SHM = Path("/dev/shm")


def preflight(run: Run, cluster: ClusterConfig, rank: Rank) -> str:
    """Check this rank's node, on every rank of an attempt: the fault as a sentence, or nothing.

    The report is in the run's folder: of the first rank on each node, and of any that found a
    fault. A rank that finds one leaves the others waiting; srun ends them when it ends.
    """
    if not cluster.preflight_s:
        return ""
    began = time.monotonic()
    checks: list[NodeCheck] = []
    name = node_name()
    overdue = _Overdue(cluster.preflight_s)
    for step in _steps(run.folder, cluster, rank):
        late = overdue.run(step, checks)
        if late or any(check.fault for check in checks):
            break
    seconds = round(time.monotonic() - began, 3)
    report = NodeReport(name, rank.attempt, rank.rank, seconds, checks)
    if rank.local_rank == 0 or report.faults:
        _write(run, report)
    if rank.rank == 0 and not report.faults:
        log.info("node %s: %s", name, ", ".join(f"{c.name} {c.found}" for c in checks))
    if report.faults:
        log.error("lockgate: %s", report.sentence)
        _exclude(run, cluster, name)
    return report.sentence


def node_checks(folder: Path, cluster: ClusterConfig) -> Iterator[Callable[[], list[NodeCheck]]]:
    """The checks of a node alone; the shared storage is that of `folder`."""
    yield lambda: [check_devices(cluster.gpus_per_node, os.environ)]
    yield lambda: [check_folder("scratch", Path(cluster.scratch), SCRATCH_FREE_BYTES)]
    yield lambda: [check_folder("shared memory", SHM, SHM_FREE_BYTES)]
    yield lambda: list(check_shared_storage(folder))


def _steps(
    folder: Path, cluster: ClusterConfig, rank: Rank
) -> Iterator[Callable[[], list[NodeCheck]]]:
    """The checks in order, the quick ones of the node alone first."""
    if rank.local_rank == 0:
        yield from node_checks(folder, cluster)
    speed = 0.0

    def product() -> list[NodeCheck]:
        nonlocal speed
        check, speed = check_product()
        return [check]

    def collective() -> list[NodeCheck]:
        from hpc.nodes.collective import check_collective  # torch.distributed: in the job only

        try:
            return list(check_collective(speed, cluster.preflight_s))
        except (RuntimeError, OSError) as error:  # a rank is gone: the node that it is on has it
            log.error("the ranks did not meet: %s", str(error).splitlines()[0])
            return [NodeCheck("all-reduce", "the ranks did not meet")]

    yield product
    yield collective


class _Overdue:
    """Runs checks one after the other, until the time for all of them is over."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.ends = time.monotonic() + limit_s

    def run(self, step: Callable[[], list[NodeCheck]], checks: list[NodeCheck]) -> bool:
        """Add the checks of `step`; true where it was late: a folder of a dead server hangs."""
        done: list[NodeCheck] = []
        worker = threading.Thread(target=lambda: done.extend(step()), daemon=True)
        worker.start()
        worker.join(max(self.ends - time.monotonic(), 0.1))
        if not worker.is_alive():
            checks.extend(done)
            return False
        after = f"after {checks[-1].name}" if checks else "at the first check"
        fault = f"its checks took longer than {self.limit_s:g} s ({after})"
        checks.append(NodeCheck("time", f"above {self.limit_s:g} s", fault))
        return True


def _write(run: Run, report: NodeReport) -> None:
    try:
        write_report(run, report)
    except OSError as error:  # the storage is the fault that it would report
        log.error("the report of node %s was not written: %s", report.node, error)


def excluded_file(run: Run) -> Path:
    """File with the nodes that the next attempt is to be started without, as sbatch takes them."""
    return reports_folder(run) / "exclude"


def _exclude(run: Run, cluster: ClusterConfig, name: str) -> None:
    """Have the job started without the node from now on, unless too few would be left."""
    path = excluded_file(run)
    try:
        before = path.read_text().strip() if path.exists() else cluster.exclude or ""
        excluded = ",".join(filter(None, [before, name]))
        check_size(replace(cluster, exclude=excluded), os.environ)
        replace_file(path, f"{excluded}\n")
    except ConfigError as error:
        log.info("node %s may come back: %s", name, error)
    except OSError as error:
        log.error("node %s is not excluded: %s", name, error)
