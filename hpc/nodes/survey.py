"""The checks of all nodes of a partition that have room now, as one Slurm job: doctor --nodes."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from conf import repo_root
from conf.schema import SchemaError, build
from hpc.jobs.slurm.commands import query
from hpc.nodes.checks import NodeCheck
from hpc.nodes.report import NodeReport

# Of one partition, which --all would forbid.
STATES = ("sinfo", "--noheader", "--Node", "--format=%N|%T")
FREE = ("idle", "mixed")
MEMORY = "700M"
"""torch with a process group of its own, and room."""
STARTS_IN_S = 60
LIMIT_S = 30


def survey(
    partition: str, shared: Path, scratch: Path, variables: Mapping[str, str]
) -> list[NodeReport]:
    """A report of every node of `partition`: those without room now have their state as a fault.

    Raises `SchedulerUnavailable` where Slurm does not answer, or the job does not start.
    """
    states = node_states(query([*STATES, f"--partition={partition}"], variables))
    free = sorted(node for node, state in states.items() if state in FREE)
    others = [
        NodeReport(node, 1, 0, 0.0, [NodeCheck("state", state, unchecked(state))])
        for node, state in sorted(states.items())
        if node not in free
    ]
    if not free:
        return others
    output = query(
        command(free, partition, shared, scratch), variables, STARTS_IN_S + 2 * LIMIT_S
    )  # fmt: skip
    reports = parse_reports(output)
    silent = set(free) - {report.node for report in reports}
    missing = [NodeCheck("report", "none", f"its checks printed no report{last_words(output)}")]
    reports += [NodeReport(node, 1, 0, 0.0, missing) for node in sorted(silent)]
    return sorted([*reports, *others], key=lambda report: report.node)


def command(nodes: Sequence[str], partition: str, shared: Path, scratch: Path) -> list[str]:
    """srun of one task on each of `nodes`, which exits with 0 whatever they found."""
    # The shared storage is where it runs: the code is found from anywhere.
    checks = [
        "env",
        f"PYTHONPATH={repo_root()}",
        "SUBMITIT_EXECUTOR=slurm",  # as in submitit's script: a rank finds the others by it
        sys.executable,
        "-m",
        "hpc.nodes",
        str(scratch),
        str(shared),
        str(LIMIT_S),
    ]
    return [
        "srun", f"--immediate={STARTS_IN_S}", "--job-name=lockgate-doctor",
        f"--partition={partition}", f"--nodelist={','.join(nodes)}", f"--nodes={len(nodes)}",
        "--ntasks-per-node=1", "--cpus-per-task=1", f"--mem={MEMORY}", "--time=3",
        f"--chdir={shared}", "sh", "-c", '"$@" 2>&1 || true', "sh", *checks,
    ]  # fmt: skip


def last_words(output: str) -> str:
    """`: ` and the last line that is no report, which may be an error; empty without one."""
    lines = [line for line in output.split("\n") if line.strip() and not line.startswith("{")]
    return f": {lines[-1].strip()}" if lines else ""


def node_states(text: str) -> dict[str, str]:
    """Node -> state with Slurm's marks, of the lines of STATES."""
    rows = [line.split("|", 1) for line in text.split("\n") if "|" in line]
    return {node: state.strip() for node, state in rows}


def unchecked(state: str) -> str:
    """The fault of a node in a state in which nothing is started on it; empty for no fault."""
    word = state.rstrip("*~#!%$@^-+")
    if state.endswith("~") and word in FREE:
        return ""
    busy = ("allocated", "completing", "planned", "reserved")
    return "" if word in busy and not state.endswith("*") else f"the node is {state}"


def parse_reports(text: str) -> list[NodeReport]:
    """The reports among the lines that the tasks printed."""
    reports = []
    for line in text.split("\n"):
        if line.startswith("{"):
            try:
                reports.append(build(NodeReport, json.loads(line), "report"))
            except (SchemaError, ValueError):
                continue  # a node without a report is named by who asked for it
    return reports
