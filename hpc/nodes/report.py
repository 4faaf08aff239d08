"""The report of one node's checks: a file in the run's folder, `nodes/<attempt>-<node>.json`."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass, field

from hpc.jobs.run.files import read_run_file, write_run_file
from hpc.jobs.run.folder import Run
from hpc.nodes.checks import NodeCheck

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}", re.ASCII)


@dataclass(frozen=True)
class NodeReport:
    """The checks of one node before one attempt."""

    node: str
    """Slurm's name of it."""
    attempt: int
    rank: int
    """First rank on it, or the one that found the fault."""
    seconds: float
    """Time that the checks took."""
    checks: list[NodeCheck] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.node):  # it becomes an argument of scontrol
            raise ValueError(f"node={self.node!r}: must be the name of one node")

    @property
    def faults(self) -> list[str]:
        """The faults of the node, in words."""
        return [check.fault for check in self.checks if check.fault]

    @property
    def values(self) -> str:
        """Every value on one line."""
        return ", ".join(f"{check.name} {check.found}" for check in self.checks)

    @property
    def sentence(self) -> str:
        """The faults as one sentence for people; empty for a node that is fit."""
        return f"node {self.node} is not fit to train: {'; '.join(self.faults)}" * bool(self.faults)


def node_name() -> str:
    """The name of this node: Slurm's, or the machine's."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname().split(".")[0]


def write_report(run: Run, report: NodeReport) -> None:
    """Leave the report in the run's folder. Raises OSError."""
    run.nodes.mkdir(exist_ok=True)
    write_run_file(run.nodes / f"{report.attempt}-{report.node}.json", report)


def read_reports(run: Run, attempt: int | None = None) -> list[NodeReport]:
    """The reports of one attempt or of all, by attempt and node; torn ones are left out."""
    pattern = "*-*.json" if attempt is None else f"{attempt}-*.json"
    found = (read_run_file(NodeReport, path).value for path in run.nodes.glob(pattern))
    return sorted((one for one in found if one), key=lambda one: (one.attempt, one.node))
