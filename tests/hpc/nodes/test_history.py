"""Nodes that end runs again and again, from written run folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc.jobs.run.folder import Run
from hpc.nodes.checks import NodeCheck
from hpc.nodes.history import NodeRun, failing_nodes, node_runs
from hpc.nodes.report import NodeReport, write_report

KILLED = "srun: error: {node}: task 1: Killed\n"


def written(root: Path, number: int, launcher: str = "", fault: str = "") -> Run:
    """A run on n1 and n2; `fault` is of n2's checks."""
    run = Run(root / f"flights-20261127-{number:06d}-abcdef")
    run.submitit.mkdir(parents=True)
    (run.submitit / "7_0_log.err").write_text(launcher)
    write_report(run, NodeReport("n1", 1, 0, 1.0, [NodeCheck("scratch", "9 GB")]))
    write_report(run, NodeReport("n2", 1, 1, 1.0, [NodeCheck("scratch", "0 MB", fault)]))
    return run


@pytest.mark.parametrize(
    ("launcher", "fault", "found"),
    [
        ("", "", ""),
        ("", "the clock is off", "the clock is off"),
        (KILLED.format(node="n2"), "", "a rank was ended by SIGKILL"),
        ("srun: error: Node failure on n2\n", "", "the node failed"),
        ("srun: error: n2: task 1: Exited with exit code 1\n", "", ""),
        (f"slurmstepd: error: Exceeded job memory limit\n{KILLED.format(node='n2')}", "", ""),
        (f"srun: Terminating StepId=7.0\n{KILLED.format(node='n2')}", "", ""),
    ],
)
def test_only_what_a_node_did_counts(tmp_path: Path, launcher: str, fault: str, found: str) -> None:
    run = written(tmp_path, 1, launcher, fault)
    assert node_runs([run]) == [NodeRun("n1", run.name, ""), NodeRun("n2", run.name, found)]


def test_a_run_without_checks_counts_for_no_node(tmp_path: Path) -> None:
    run = Run(tmp_path / "flights-20261127-000001-abcdef")
    run.submitit.mkdir(parents=True)
    assert node_runs([run]) == []


def history(faults: str) -> list[NodeRun]:
    return [NodeRun("n2", f"run{k}", "x" * (one == "F")) for k, one in enumerate(faults)]


@pytest.mark.parametrize(
    ("faults", "counted"),
    [("FFF", "3 of its last 3"), ("FFF..", "3 of its last 5"), ("FFFFF", "5 of its last 5"),
     ("FF", None), ("FF...", None), ("FFF...", None), ("FFF.F.", "3 of its last 5")],
)  # fmt: skip
def test_a_node_is_named_for_its_last_runs(faults: str, counted: str | None) -> None:
    found = failing_nodes([*history(faults), NodeRun("n1", "run9", "")])
    assert list(found) == (["n2"] if counted else [])
    if counted:
        assert found["n2"].startswith(f"n2 failed {counted} runs (run")
        assert found["n2"].endswith("; leave it out: cluster.exclude=n2")
