"""A run's time line: of its files, never guessed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpc.jobs.run.files import CancelFile, JobFile, StatusFile, read_record, write_run_file
from hpc.jobs.run.folder import Run
from hpc.jobs.run.timeline import RunAttempt, read_timeline, seconds_between

DAY = "2026-01-01T00:00:"


@pytest.fixture()
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "t-20260101-000000-aaaaaa")
    run.logs.mkdir(parents=True)
    write_run_file(run.job, JobFile("slurm", "4", f"{DAY}00+00:00", "train", 2))
    return run


def leave(path: Path, text: str, second: int) -> None:
    path.write_text(text)
    os.utime(path, (1767225600 + second, 1767225600 + second))


def test_three_attempts_of_which_the_middle_one_left_only_its_end(run):
    leave(run.logs / "1-0.log", "x", 20)
    leave(run.exit_code(1), "75\n", 21)
    leave(run.logs / "2-0.log", "x", 30)
    leave(run.logs / "2-1.log", "x", 31)  # killed: it left no code
    leave(run.logs / "3-0.log", "x", 40)
    (run.logs / "launcher.log").write_text("")
    status = StatusFile("running", 3, started=f"{DAY}10+00:00", attempt_started=f"{DAY}35+00:00")
    write_run_file(run.status, status)
    line = read_timeline(read_record(run))
    assert line.attempts == (
        RunAttempt(1, f"{DAY}10+00:00", f"{DAY}21+00:00", 75),
        RunAttempt(2, None, f"{DAY}31+00:00", None),
        RunAttempt(3, f"{DAY}35+00:00", None, None),
    )
    assert (line.requeues, line.queued_seconds) == (2, 10.0)
    assert (line.cancelled, line.candidate) == (None, None)


def test_a_run_that_waits_has_no_attempt(run):
    line = read_timeline(read_record(run))
    assert (line.submitted, line.attempts, line.requeues) == (f"{DAY}00+00:00", (), 0)
    assert line.queued_seconds is None


def test_the_end_the_cancel_and_the_candidate(run):
    write_run_file(run.status, StatusFile("finished", 1, ended=f"{DAY}50+00:00"))
    write_run_file(run.cancelled, CancelFile(by="train", at=f"{DAY}55+00:00"))
    (run.folder / "candidate").mkdir()
    leave(run.folder / "candidate" / "candidate.json", "{}", 50)
    line = read_timeline(read_record(run))
    assert line.attempts == (RunAttempt(1, None, f"{DAY}50+00:00", None),)
    assert (line.cancelled, line.candidate) == (f"{DAY}55+00:00", f"{DAY}50+00:00")


@pytest.mark.parametrize("text", ["", "x", "7" * 99])
def test_an_exit_code_that_is_none(text, run):
    leave(run.exit_code(1), text, 5)
    assert read_timeline(read_record(run)).attempts[0].exit_code is None


@pytest.mark.parametrize("end", [None, "", "soon", "2026-01-01T00:00:00"])
def test_between_what_is_no_time_there_are_no_seconds(end):
    assert seconds_between(f"{DAY}00+00:00", end) is None
    assert seconds_between(end, f"{DAY}00+00:00") is None


def test_the_step_that_an_attempt_went_on_from_is_in_the_head_of_its_log(run):
    leave(run.logs / "1-0.log", "a new run\nresumed after step 9 in the text\n", 20)
    leave(run.logs / "2-0.log", "6 parameters\nresumed after step 400\nstep 410\n", 30)
    attempts = read_timeline(read_record(run)).attempts
    assert [one.resumed_step for one in attempts] == [0, 400]


def test_times_of_a_copied_folder_are_those_of_the_copy_and_count_as_none(run):
    write_run_file(run.status, StatusFile("finished", 2, ended=f"{DAY}50+00:00"))
    for second, expected in ((40, f"{DAY}40+00:00"), (40 + 86400, None), (-86400, None)):
        leave(run.logs / "1-0.log", "", second)
        assert read_timeline(read_record(run)).attempts[0].ended == expected, second


def test_only_the_newest_attempts_are_listed_and_all_are_counted(run, monkeypatch):
    monkeypatch.setattr("hpc.jobs.run.timeline.MOST_ATTEMPTS", 3)
    for number in range(1, 8):
        leave(run.logs / f"{number}-0.log", "", number)
    line = read_timeline(read_record(run))
    assert ([one.number for one in line.attempts], line.requeues) == ([5, 6, 7], 6)
    assert line.queued_seconds is None
