"""What the ranks of a run say about it, in whatever order they come to say it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hpc.jobs import status
from hpc.jobs.rank import Rank
from hpc.jobs.run import Run

LEADER = Rank(0, 2, 0, 2, "127.0.0.1", 20005, "5", attempt=1, local=False)
OTHER = replace(LEADER, rank=1, local_rank=1)
NAN = FloatingPointError("loss is nan at step 3")


def beside(monkeypatch, other) -> None:
    """`other` happens when the next marker is about to be written, after everything was read."""
    write = status.write_marker

    def interrupted(path, content):
        monkeypatch.setattr(status, "write_marker", write)
        other()
        write(path, content)

    monkeypatch.setattr(status, "write_marker", interrupted)


@pytest.mark.parametrize("state", [None, status.FINISHED, status.STOPPED, status.REQUEUED])
@pytest.mark.parametrize("when", ["before", "beside", "after"])
def test_a_rank_that_failed_is_heard_whatever_rank_0_says(monkeypatch, tmp_path, state, when):
    run = Run(tmp_path)
    if state:
        status.begin(run, LEADER)

    def other():
        status.fail(run, OTHER, NAN)

    if when == "before":
        other()
    elif when == "beside":
        beside(monkeypatch, other)
    if state:
        status.end(run, LEADER, state)
    else:
        status.begin(run, LEADER)
    if when == "after":
        other()
    said = status.read(run)
    assert (said["state"], said["attempt"]) == (status.FAILED, 1)
    assert said["error"] == {
        "type": "FloatingPointError", "message": "loss is nan at step 3", "rank": 1,
    }  # fmt: skip
    assert said["ended"]


def test_the_first_failure_of_an_attempt_is_the_one_that_is_heard(tmp_path):
    run = Run(tmp_path)
    status.begin(run, LEADER)
    status.fail(run, OTHER, NAN)
    status.fail(run, LEADER, RuntimeError("connection closed by peer"))
    assert status.read(run)["error"]["rank"] == 1


def test_a_failure_is_of_its_attempt(tmp_path):
    run = Run(tmp_path)
    status.begin(run, LEADER)
    status.fail(run, OTHER, NAN)
    second = replace(LEADER, attempt=2)
    status.begin(run, second)
    said = status.read(run)
    assert (said["state"], said["attempt"], said.get("error")) == (status.RUNNING, 2, None)
    status.fail(run, second, RuntimeError("out of memory"))
    assert status.read(run)["error"]["message"] == "out of memory"
    status.begin(run, replace(LEADER, attempt=3))
    status.end(run, replace(LEADER, attempt=3), status.FINISHED)
    assert status.read(run)["state"] == status.FINISHED
    assert status.read(run)["started"] <= status.read(run)["attempt_started"]


def test_a_run_that_said_nothing(tmp_path):
    assert status.read(Run(tmp_path)) == {}
