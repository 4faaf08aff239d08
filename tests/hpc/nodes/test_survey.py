"""All nodes by one job: which are checked, the command, and what the tasks print."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from conf import repo_root
from hpc.nodes import survey as module
from hpc.nodes.checks import NodeCheck
from hpc.nodes.report import NodeReport
from hpc.nodes.survey import command, parse_reports, survey, unchecked

FIT = NodeReport("n1", 1, 0, 0.4, [NodeCheck("scratch", "9.0 GB free")])


@pytest.mark.parametrize(
    ("state", "fault"),
    [("allocated", ""), ("idle~", ""), ("planned", ""), ("down*", "the node is down*"),
     ("drained", "the node is drained"), ("allocated*", "the node is allocated*")],
)  # fmt: skip
def test_a_state_in_which_nothing_is_started(state: str, fault: str) -> None:
    assert unchecked(state) == fault


def test_free_nodes_are_checked_and_the_others_named(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[str] = []

    def query(words: list[str], *_: object) -> str:
        commands.append(words[0])
        if words[0] == "sinfo":
            return "n1|idle\nn2|mixed\nn3|idle~\nn4|down*\n"
        assert "--nodelist=n1,n2" in words
        error = "ModuleNotFoundError: No module named 'torch'"
        return f"a line of somebody's profile\n{json.dumps(asdict(FIT))}\n{{torn\n{error}\n"

    monkeypatch.setattr(module, "query", query)
    found = {one.node: one for one in survey("gpu", Path("/runs"), Path("/tmp"), {})}
    assert commands == ["sinfo", "srun"]
    assert found["n1"] == FIT
    said = "its checks printed no report: ModuleNotFoundError: No module named 'torch'"
    assert found["n2"].faults == [said]
    assert (found["n3"].faults, found["n4"].faults) == ([], ["the node is down*"])


def test_no_free_node_is_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "query", lambda words, *_: {"sinfo": "n1|allocated\n"}[words[0]])
    (only,) = survey("gpu", Path("/runs"), Path("/tmp"), {})
    assert (only.node, only.faults) == ("n1", [])


def test_the_job_is_small_and_does_not_wait_for_ever() -> None:
    words = command(["n1", "n2"], "gpu", Path("/runs"), Path("/scratch"))
    assert {"--immediate=60", "--nodes=2", "--ntasks-per-node=1", "--time=3"} <= set(words)
    assert f"PYTHONPATH={repo_root()}" in words
    assert words[-5:] == ["-m", "hpc.nodes", "/scratch", "/runs", "30"]


def test_reports_of_strange_shape_are_left_out() -> None:
    lines = ['{"node": "n1"}', "[]", '{"node": "../x", "attempt": 1, "rank": 0, "seconds": 1.0}']
    assert parse_reports("\n".join([*lines, json.dumps(asdict(FIT))])) == [FIT]
