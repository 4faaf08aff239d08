"""`lockgate doctor` on nodes: the table of all, and the ones that end runs again and again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpc.cli.main import main
from hpc.jobs.run.folder import Run
from hpc.nodes.checks import NodeCheck
from hpc.nodes.report import NodeReport, write_report

FIT = NodeReport("n1", 1, 0, 0.4, [NodeCheck("scratch", "9 GB free"), NodeCheck("speed", "99%")])
FULL = NodeReport("n2", 1, 1, 0.1, [NodeCheck("scratch", "0 MB free", "/tmp has 0 MB left")])
OFF = NodeReport("n3", 1, 0, 0.0, [NodeCheck("state", "idle~")])


def test_every_node_is_a_row(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("hpc.nodes.survey.survey", lambda *_: [FIT, FULL, OFF])
    assert main(["doctor", "--nodes"]) == 5
    rows = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert cells == [
        ["node", "verdict", "scratch", "speed", "state"],
        ["n1", "fit", "9 GB free", "99%", "-"],
        ["n2", "/tmp has 0 MB left", "0 MB free", "-", "-"],
        ["n3", "not checked", "-", "-", "idle~"],
    ]
    monkeypatch.setattr("hpc.nodes.survey.survey", lambda *_: [FIT, OFF])
    assert main(["doctor", "--nodes", "--json"]) == 0
    assert [one["node"] for one in json.loads(capsys.readouterr().out)] == ["n1", "n3"]


@pytest.mark.parametrize(("faults", "fine"), [(3, False), (2, True)])
def test_a_node_that_ends_runs_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, faults: int, fine: bool
) -> None:
    monkeypatch.setenv("LOCKGATE_SITE", str(tmp_path))
    for number in range(4):
        run = Run(tmp_path / "runs" / f"tiny-20260101-00000{number}-aaaaaa")
        run.submitit.mkdir(parents=True)
        run.spec_path.touch()
        fault = "the clock is off" if number < faults else ""
        write_report(run, NodeReport("n2", 1, 0, 0.1, [NodeCheck("clock", "?", fault)]))
    main(["doctor", "--json"])
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}["nodes in runs"]
    assert found["fine"] is fine
    said = "n2 failed 3 of its last 4 runs (tiny-20260101-000002-aaaaaa: the clock is off); leave"
    assert found["detail"].startswith("none of n2 fails" if fine else said)
