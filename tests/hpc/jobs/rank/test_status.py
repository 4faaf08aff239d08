"""What the ranks of a run say about it, in whatever order they come to say it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hpc.jobs.rank import status
from hpc.jobs.rank.rendezvous import Rank
from hpc.jobs.run.files import RankFailure, Reading, StatusFile, read_status
from hpc.jobs.run.folder import Run

LEADER = Rank(0, 2, 0, 2, "127.0.0.1", 20005, "5", attempt=1, local=False)
OTHER = replace(LEADER, rank=1, local_rank=1)
NAN = FloatingPointError("loss is nan at step 3")


def reported(run: Run) -> StatusFile:
    status = read_status(run)
    assert status.value is not None
    assert status.problem is None
    return status.value


def beside(monkeypatch, other) -> None:
    """`other` happens when the next file is about to be written, after everything was read."""
    write = status.write_run_file

    def interrupted(path, content):
        monkeypatch.setattr(status, "write_run_file", write)
        other()
        write(path, content)

    monkeypatch.setattr(status, "write_run_file", interrupted)


@pytest.mark.parametrize("state", [None, "finished", "stopped", "requeued"])
@pytest.mark.parametrize("when", ["before", "beside", "after"])
def test_a_rank_that_failed_is_heard_whatever_rank_0_says(monkeypatch, tmp_path, state, when):
    run = Run(tmp_path)
    if state:
        status.start_attempt(run, LEADER)

    def other():
        status.fail_attempt(run, OTHER, NAN)

    if when == "before":
        other()
    elif when == "beside":
        beside(monkeypatch, other)
    if state:
        status.end_attempt(run, LEADER, state)
    else:
        status.start_attempt(run, LEADER)
    if when == "after":
        other()
    said = reported(run)
    assert (said.state, said.attempt) == ("failed", 1)
    assert said.error == RankFailure("FloatingPointError", "loss is nan at step 3", 1)
    assert said.ended


def test_the_first_failure_of_an_attempt_is_the_one_that_is_heard(tmp_path):
    run = Run(tmp_path)
    status.start_attempt(run, LEADER)
    status.fail_attempt(run, OTHER, NAN)
    status.fail_attempt(run, LEADER, RuntimeError("connection closed by peer"))
    assert reported(run).error.rank == 1


def test_a_failure_is_of_its_attempt(tmp_path):
    run = Run(tmp_path)
    status.start_attempt(run, LEADER)
    status.fail_attempt(run, OTHER, NAN)
    second = replace(LEADER, attempt=2)
    status.start_attempt(run, second)
    said = reported(run)
    assert (said.state, said.attempt, said.error) == ("running", 2, None)
    status.fail_attempt(run, second, RuntimeError("out of memory"))
    assert reported(run).error.message == "out of memory"
    status.start_attempt(run, replace(LEADER, attempt=3))
    status.end_attempt(run, replace(LEADER, attempt=3), "finished")
    assert reported(run).state == "finished"
    assert reported(run).started <= reported(run).attempt_started


def test_a_run_that_said_nothing(tmp_path):
    assert read_status(Run(tmp_path)) == Reading()
