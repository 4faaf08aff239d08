"""Slurm's answers shared by followers: one question for all, and none that is a stranger's."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from hpc.jobs.errors import SchedulerUnavailable
from hpc.jobs.slurm.jobs import WantedJob, find_jobs
from hpc.jobs.slurm.recent import recent_answer, recent_answers

COMMAND = ("squeue", "--json")


class Slurm:
    """A `query` that counts; `answer` None is a controller that is down."""

    def __init__(self, answer: str | None = "jobs") -> None:
        self.answer = answer
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, command: Sequence[str], variables: Mapping[str, str]) -> str:
        self.asked.append(tuple(command))
        if self.answer is None:
            raise SchedulerUnavailable("squeue did not answer within 20 s")
        return self.answer


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("SLURM_CONF", raising=False)
    return tmp_path / f"lockgate-slurm-{os.getuid()}"


def test_fifty_followers_ask_once():
    slurm, answers = Slurm(), []

    def follow() -> None:
        with recent_answers(60):
            answers.extend(recent_answer(COMMAND, {}, slurm) for _ in range(3))

    threads = [threading.Thread(target=follow) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["jobs"] * 150
    assert slurm.asked == [COMMAND]


def test_one_who_does_not_follow_has_a_new_answer_each_time():
    slurm = Slurm()
    with recent_answers(60):
        recent_answer(COMMAND, {}, slurm)
    slurm.answer = "newer"
    assert [recent_answer(COMMAND, {}, slurm) for _ in range(2)] == ["newer", "newer"]
    assert len(slurm.asked) == 3


def test_an_old_answer_and_one_of_the_future_are_asked_for_again(folder):
    slurm = Slurm()
    with recent_answers(60):
        recent_answer(COMMAND, {}, slurm)
        (path,) = [one for one in folder.iterdir() if one.suffix != ".lock"]
        for late in (-61, 3600):
            time = path.stat().st_mtime + late
            os.utime(path, (time, time))
            recent_answer(COMMAND, {}, slurm)
        assert len(slurm.asked) == 3
        path.write_text("{torn")
        assert recent_answer(COMMAND, {}, slurm) == "jobs"
    assert len(slurm.asked) == 4


def test_other_clusters_and_other_commands_have_answers_of_their_own():
    slurm = Slurm()
    with recent_answers(60):
        for conf in ("/a/slurm.conf", "/b/slurm.conf", "/a/slurm.conf"):
            recent_answer(COMMAND, {"SLURM_CONF": conf}, slurm)
        recent_answer(("sacct", "--jobs=3"), {"SLURM_CONF": "/a/slurm.conf"}, slurm)
    assert len(slurm.asked) == 3


def test_a_controller_that_is_down_is_asked_once_too():
    slurm = Slurm(None)
    with recent_answers(60):
        for _ in range(2):
            with pytest.raises(SchedulerUnavailable, match="within 20 s"):
                recent_answer(COMMAND, {}, slurm)
    assert len(slurm.asked) == 1


@pytest.mark.parametrize("made", ["open", "link", "file"])
def test_a_folder_that_others_may_enter_is_not_used(folder, tmp_path, made):
    if made == "open":
        folder.mkdir()
        folder.chmod(0o770)
    elif made == "link":
        (tmp_path / "other").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "other")
    else:
        folder.write_text("")
    slurm = Slurm()
    with recent_answers(60):
        assert [recent_answer(COMMAND, {}, slurm) for _ in range(2)] == ["jobs", "jobs"]
    assert len(slurm.asked) == 2


def test_followers_of_several_runs_share_the_queue(monkeypatch):
    slurm = Slurm('{"jobs": []}')
    pinged = []
    monkeypatch.setattr("hpc.jobs.slurm.jobs.query", slurm)
    monkeypatch.setattr("hpc.jobs.slurm.jobs.controller_is_up", lambda _: pinged.append(1) or True)
    with recent_answers(60):
        for number in range(20):
            find_jobs([WantedJob(f"run{number}", "me", "")], {})
    assert (len(pinged), len(slurm.asked)) == (1, 1)
