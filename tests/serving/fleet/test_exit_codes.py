"""How `fab` ends: one sentence, and one of the exit codes of `conf.errors`."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from invoke.exceptions import Exit
from rich.console import Console

import conf
from serving.fleet.cli import command, rollout_tasks, task_output
from serving.fleet.cli.command import RolloutReport
from serving.fleet.cli.host_status import Row
from serving.fleet.cli.status import Status
from serving.fleet.cli.status_view import status_tables
from serving.fleet.errors import FleetConfigError, FleetError, FleetRefusal, Unreachable
from serving.fleet.haproxy.edge_link import EdgeError, EdgeUnreachable
from serving.fleet.rollout.engine import Outcome
from serving.fleet.rollout.lease import LeaseLost, Locked
from serving.fleet.ssh.transfer import NoRoom
from serving.fleet.ssh.triton import GoldenMismatch
from serving.fleet.ssh.verbs import PackageRefused


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FleetError("it failed."), 1),
        (Locked("fab is at work."), 1),
        (GoldenMismatch("a: golden example 0 of toy/2 differs."), 1),
        (EdgeError("the edge refused it."), 1),
        (FleetConfigError("no such model."), 2),
        (conf.ConfigError("no such key."), 2),
        (LeaseLost("another has taken over."), 3),
        (FleetRefusal("it is not the released one."), 4),
        (PackageRefused("a: changed-file", "changed-file"), 4),
        (NoRoom("a: no room."), 4),
        (Unreachable("a does not answer."), 5),
        (EdgeUnreachable("the edge does not answer."), 5),
    ],
)
def test_an_error_is_one_sentence_and_its_exit_code(monkeypatch, capsys, error, code):
    monkeypatch.setattr(command, "controls", lambda config: None)

    def fail(on):
        raise error

    with pytest.raises(Exit) as ended:
        task_output.run_fleet([], fail)
    assert ended.value.code == code
    assert capsys.readouterr().err == f"fab: {error}\n"


def test_ctrl_c_is_130_and_names_the_way_on(monkeypatch, capsys):
    monkeypatch.setattr(command, "controls", lambda config: None)

    def stop(on):
        raise KeyboardInterrupt

    with pytest.raises(Exit) as ended:
        task_output.run_fleet([], stop)
    assert ended.value.code == 130
    assert "open in the journal: fab status" in capsys.readouterr().err


def test_a_defect_of_ours_is_not_turned_into_a_sentence(monkeypatch):
    monkeypatch.setattr(command, "controls", lambda config: None)
    with pytest.raises(ZeroDivisionError):
        task_output.run_fleet([], lambda on: 1 / 0)


@pytest.mark.parametrize(
    ("outcome", "code", "words"),
    [
        (Outcome("done"), 0, "is in production"),
        (Outcome("rolled-back", "b failed.", exit_code=1), 1, "as it was before. b failed."),
        (Outcome("rolled-back", "Ctrl-C.", exit_code=130), 130, "was stopped; everything is as"),
        (Outcome("refused", "a: changed-file", exit_code=4), 4, "not activated on any host"),
        (Outcome("manual-intervention", "b", {"c": "gone"}, 3), 3, "c: gone"),
    ],
)
def test_a_rollout_ends_with_the_code_of_its_outcome(capsys, outcome, code, words):
    report = RolloutReport(outcome, "toy", 2, "ab" * 32, 1, "r1", ("a", "b"), 1.5)
    if code:
        with pytest.raises(Exit) as ended:
            rollout_tasks._finish(report, False)
        assert ended.value.code == code
    else:
        rollout_tasks._finish(report, False)
    assert words in capsys.readouterr().out


def test_a_reader_that_goes_away_leaves_no_traceback():
    code = (
        "from serving.fleet.cli.task_output import print_result; "
        "print_result({}, False, ['x' * 100] * 2000)"
    )
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_terminal_gets_the_status_as_a_table():
    row = Row("toy", "a", "us-east", (1, 2), 2, 2, "ab" * 32, "drain", ("gets no traffic",))
    out = io.StringIO()
    Console(file=out, width=130).print(status_tables(Status((row,), ("rollout r1 did not end.",))))
    (line,) = [line for line in out.getvalue().splitlines() if "us-east" in line]
    assert line.split()[:7] == ["a", "us-east", "toy", "1", "2", "2", "abababababab"]
    assert "gets no traffic" in line and "rollout r1 did not end." in out.getvalue()
