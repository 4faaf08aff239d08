"""Nodes on which runs end again and again, whoever's they are: from the folders of the newest runs.

Only what a node does is counted: checks that it failed, its own failure, a rank that was killed
there. An error in training, or too much memory, is the run's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hpc.jobs.cause.evidence import LauncherLog, parse_launcher
from hpc.jobs.regular_file import open_regular_file
from hpc.jobs.run.folder import Run
from hpc.jobs.run.logs import log_streams
from hpc.nodes.report import read_reports

RUNS = 100
"""Newest runs that are read."""
LAST = 5
"""Runs of a node that count."""
FAILED = 3
"""Failed ones among them from which a node is named."""
TAIL_BYTES = 1 << 16


@dataclass(frozen=True)
class NodeRun:
    """A run that was on a node, and what the node did to it; empty for nothing."""

    node: str
    run: str
    fault: str


def node_runs(runs: Sequence[Run]) -> list[NodeRun]:
    """Every node of each of the newest `runs` (oldest first), in the same order."""
    return [one for run in runs[-RUNS:] for one in _of_run(run)]


def failing_nodes(history: Sequence[NodeRun]) -> dict[str, str]:
    """Node -> `failed 3 of its last 5 runs (...)`, of those that failed FAILED of LAST."""
    by_node: dict[str, list[NodeRun]] = {}
    for one in history:
        by_node.setdefault(one.node, []).append(one)
    sentences = {}
    for node, all_runs in sorted(by_node.items()):
        last = all_runs[-LAST:]
        failed = [one for one in last if one.fault]
        if len(failed) >= FAILED:
            newest = f"{failed[-1].run}: {failed[-1].fault}"
            count = f"{len(failed)} of its last {len(last)} runs"
            sentences[node] = (
                f"{node} failed {count} ({newest}); leave it out: cluster.exclude={node}"
            )
    return sentences


def _of_run(run: Run) -> Iterator[NodeRun]:
    reports = read_reports(run)
    if not reports:
        return
    faults = {report.node: "; ".join(report.faults) for report in reports if report.faults}
    launcher = _launcher_fault(parse_launcher(_launcher_tail(run)))
    for node in sorted({report.node for report in reports}):
        yield NodeRun(node, run.name, faults.get(node) or launcher.get(node, ""))


def _launcher_fault(log: LauncherLog) -> dict[str, str]:
    """The node that ended the newest attempt, with its fault; empty where it was no node's."""
    if log.failed_node:
        return {log.failed_node: "the node failed"}
    first = next((end for end in log.ends if not end.after_kill), None)
    if first and first.signal in ("SIGKILL", "SIGBUS") and not log.out_of_memory:
        return {first.node: f"a rank was ended by {first.signal}"}
    return {}


def _launcher_tail(run: Run) -> str:
    """The end of the launcher's output; empty where this user may not read it."""
    for stream, path in log_streams(run):
        if stream == "launcher":
            try:
                with open_regular_file(path) as file:
                    file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
                    return file.read(TAIL_BYTES).decode(errors="replace")
            except OSError:
                return ""
    return ""
