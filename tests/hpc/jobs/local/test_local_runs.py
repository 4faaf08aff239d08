"""Whole runs through submitit's local executor: submit, follow, cancel, requeue, refuse."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpc.jobs.local.process import is_running, rank_processes
from hpc.jobs.rank.exit_codes import REQUEUE, TOO_OFTEN
from hpc.jobs.run.files import AttemptEndFile, JobFile, StatusFile, read_run_file, read_status
from tests.hpc.jobs.standin import STAND_IN_TASK

pytestmark = pytest.mark.timeout(120)


def until(condition: Callable[[], object], what: str, patience_s: float = 60) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"never saw: {what}"
        time.sleep(0.05)


def seen(run, rank: int) -> dict:
    return json.loads((run.folder / f"seen-{rank}.json").read_text())


def job_of(run) -> JobFile:
    job = read_run_file(JobFile, run.job).value
    assert job is not None
    return job


def status_of(run) -> StatusFile:
    status = read_status(run).value
    assert status is not None
    return status


def ranks_begun(run, ranks: int = 2) -> Callable[[], bool]:
    return lambda: len(list(run.folder.glob("seen-*.json"))) == ranks


def signal_ranks(run) -> None:
    """The signal before a time limit."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        if _is_rank_of(path, run):
            os.kill(int(path.parent.name), signal.SIGUSR2)


def test_a_run_finishes_on_every_rank(checkout):
    run = checkout.train()
    followed = checkout.wait(run)
    assert followed.returncode == 0, followed.stdout
    assert "1:0 | rank 0 begins" in followed.stdout
    assert "1:1 | rank 1 begins" in followed.stdout
    written = status_of(run)
    assert (written.state, written.attempt, written.ranks) == ("finished", 1, 2)
    assert written.metrics["step"] == 5
    first, second = (seen(run, rank)["environment"] for rank in (0, 1))
    assert [first[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")] == ["0", "2", "0"]
    assert [second[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")] == ["1", "2", "1"]
    assert first["MASTER_ADDR"] == "127.0.0.1"
    assert first["MASTER_PORT"] == second["MASTER_PORT"]
    listed = json.loads(checkout.lockgate("ls", "--json").stdout)
    assert [(item["run"], item["state"], item["step"]) for item in listed] == [
        (run.name, "finished", 5)
    ]


def test_editing_code_and_config_after_submit_changes_nothing(checkout):
    loop = checkout.root / "hpc" / "train" / "loop.py"
    task = checkout.root / "conf" / "task" / "standin.yaml"
    run = checkout.train()
    loop.write_text(loop.read_text().replace("as submitted", "as edited"))
    task.write_text(task.read_text().replace("hello", "goodbye"))
    assert checkout.wait(run).returncode == 0
    assert seen(run, 0)["word"] == "as submitted"
    assert seen(run, 0)["greeting"] == "hello"
    again = checkout.train()
    assert checkout.wait(again).returncode == 0
    assert seen(again, 0)["word"] == "as edited"
    assert again.spec.source.digest != run.spec.source.digest


def make_project(root: Path) -> Path:
    """A project whose task is the stand-in with a module of its own."""
    (root / "conf" / "task").mkdir(parents=True)
    (root / "mine").mkdir()
    (root / "lockgate.yaml").write_text("name: mine\n")
    (root / "mine" / "word.py").write_text('WORD = "as submitted"\n')
    (root / "conf" / "task" / "standin.yaml").write_text(
        STAND_IN_TASK.replace("behaviour:", "module: mine.word\n  behaviour:")
    )
    return root


def test_a_run_uses_its_project_as_it_was_at_submit(checkout, tmp_path):
    project = make_project(tmp_path / "elsewhere" / "mine")
    run = checkout.train("task.behaviour=wait", "--project", str(project))
    until(ranks_begun(run), "both ranks begin")
    (project / "mine" / "word.py").write_text('WORD = "as edited"\n')
    (project / "mine" / "word.py").unlink()
    signal_ranks(run)
    followed = checkout.wait(run)  # the second attempt uses the same snapshot
    assert followed.returncode == 0, followed.stdout
    assert status_of(run).attempt == 2
    inside = run.folder.parent / "snapshots"
    for rank in (0, 1):
        assert seen(run, rank)["project_word"] == "as submitted"
        variables = seen(run, rank)["environment"]
        snapshot, within = variables["PYTHONPATH"].split(":")
        assert variables["LOCKGATE_PROJECT"] == within == f"{snapshot}/project"
        assert Path(snapshot).parent == inside
    assert run.spec.project is not None
    assert run.spec.project.digest != run.spec.source.digest


def test_a_run_whose_snapshot_lost_the_project_is_refused(checkout, tmp_path):
    project = make_project(tmp_path / "mine")
    run = checkout.train("task.behaviour=wait", LOCKGATE_PROJECT=str(project))
    until(ranks_begun(run), "both ranks begin")
    word = Path(seen(run, 0)["environment"]["LOCKGATE_PROJECT"]) / "mine" / "word.py"
    word.chmod(0o644)
    word.write_text('WORD = "changed"\n')
    signal_ranks(run)
    followed = checkout.wait(run)
    assert followed.returncode == 1
    assert "was changed after submit" in followed.stdout


def test_a_failed_rank_fails_the_run_and_says_why(checkout):
    run = checkout.train("task.behaviour=fail")
    followed = checkout.wait(run)
    assert followed.returncode == 1
    assert "failed FloatingPointError: loss is nan at step 3 (rank 1)" in followed.stdout
    assert "Traceback" in followed.stdout  # the log keeps it; the last line is for people
    job = job_of(run)
    until(lambda: not is_running(int(job.job_id), job.process_started), "the parent ends")
    assert not (run.logs / "2-0.log").exists(), "an error of its own never comes back"
    why = checkout.lockgate("why", run.name)
    assert f"{run.name} failed: Rank 1 failed: FloatingPointError: loss is nan" in why.stdout


def test_cancel_waits_until_the_processes_are_gone(checkout):
    run = checkout.train("task.behaviour=hang")
    until(ranks_begun(run), "both ranks at work")
    job = job_of(run)
    done = checkout.lockgate("cancel", run.name, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "cancelled"
    assert not is_running(int(job.job_id), job.process_started)
    assert (run.folder / "checkpoints").is_dir(), "the ranks were given time to save"
    again = checkout.lockgate("cancel", run.name)
    assert again.returncode == 0
    assert "over already" in again.stdout


def test_the_signal_before_a_limit_saves_and_starts_again(checkout):
    run = checkout.train("task.behaviour=wait")
    until(ranks_begun(run), "both ranks at work")
    signal_ranks(run)
    followed = checkout.wait(run)
    assert followed.returncode == 0, followed.stdout
    assert "1:0 | lockgate: attempt 1 saved and stopped (SIGUSR2)" in followed.stdout
    assert "2:0 | rank 0 begins" in followed.stdout
    written = status_of(run)
    assert (written.state, written.attempt) == ("finished", 2)
    assert written.started <= written.attempt_started


def test_too_many_requeues_fail_the_run(checkout):
    run = checkout.train("task.behaviour=hang", "cluster.max_requeues=0")
    until(ranks_begun(run), "both ranks at work")
    signal_ranks(run)
    followed = checkout.wait(run)
    assert followed.returncode == 1
    assert "It gets one attempt (cluster.max_requeues=0)." in followed.stdout
    assert read_run_file(AttemptEndFile, run.attempt_end(1)).value.exit_code == TOO_OFTEN


def kill_rank(run, rank: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to one rank of the newest attempt; its controller's pid is the job's id."""
    os.kill(rank_processes(int(status_of(run).job_id))[rank], number)


def begun(run, attempt: int) -> Callable[[], bool]:
    """True once both ranks of an attempt have begun to train."""
    logs = [run.logs / f"{attempt}-{rank}.log" for rank in (0, 1)]
    return lambda: all(path.exists() and "begins" in path.read_text() for path in logs)


def test_a_killed_rank_brings_the_run_back(checkout):
    run = checkout.train("task.behaviour=first")
    until(begun(run, 1), "both ranks at work")
    kill_rank(run, 1)
    followed = checkout.wait(run)
    assert followed.returncode == 0, followed.stdout
    assert (status_of(run).state, status_of(run).attempt) == ("finished", 2)
    end = read_run_file(AttemptEndFile, run.attempt_end(1)).value
    assert (end.outcome, end.kind, end.rank, end.exit_code) == ("requeued", "killed", 1, REQUEUE)
    why = json.loads(checkout.lockgate("why", run.name, "--json").stdout)
    assert "Rank 1 ended without a word" in why["attempts"][0]["sentence"]


def test_a_run_that_is_killed_without_progress_is_given_up(checkout):
    run = checkout.train("task.behaviour=hang", "cluster.max_requeues=1")
    for attempt in (1, 2):
        until(begun(run, attempt), f"both ranks of attempt {attempt}")
        kill_rank(run, 1)
    followed = checkout.wait(run)
    assert followed.returncode == 1
    assert not (run.logs / "3-0.log").exists()
    sentence = "2 attempts in a row brought no newer checkpoint at all, and cluster.max_requeues "
    assert f"failed {sentence}allows 1. The last one: Rank 1 ended" in followed.stdout
    assert f"failed: {sentence}" in checkout.lockgate("why", run.name).stdout


def test_a_stopped_rank_is_a_hang_with_stacks_and_the_run_comes_back(checkout):
    run = checkout.train("task.behaviour=first", "hang_timeout_s=2")
    until(begun(run, 1), "both ranks at work")
    kill_rank(run, 1, signal.SIGSTOP)
    followed = checkout.wait(run)
    assert followed.returncode == 0, followed.stdout
    end = read_run_file(AttemptEndFile, run.attempt_end(1)).value
    assert (end.outcome, end.kind, end.rank) == ("requeued", "hang", 1)
    assert "hang_timeout_s=2" in end.sentence
    assert "rank 1 left no stacks" in end.sentence
    assert "rank 0 in train (loop.py:" in end.sentence
    assert "most recent call first" in (run.logs / "1-0.log").read_text()


@pytest.mark.parametrize("what", ["spec", "snapshot", "dataset"])
def test_a_job_refuses_what_is_not_as_frozen(checkout, what):
    # The first run makes the snapshot; the second is stopped between submit and start.
    run = checkout.train("task.behaviour=wait")
    until(ranks_begun(run), "both ranks at work")
    if what == "spec":
        run.spec_path.chmod(0o644)
        run.spec_path.write_text(run.spec_path.read_text().replace("hello", "goodbye"))
    elif what == "snapshot":
        loop = checkout.runs / "snapshots" / run.spec.source.digest / "hpc/train/loop.py"
        loop.chmod(0o644)
        loop.write_text(loop.read_text() + "\n")
    else:
        lineage = run.spec.dataset.folder / "lineage.json"
        lineage.write_text(lineage.read_text().replace(run.spec.dataset.digest, "0" * 64))
    signal_ranks(run)
    followed = checkout.wait(run)
    assert followed.returncode == 1
    failure = status_of(run)
    assert "SpecChanged" in failure.error.type
    assert failure.attempt == 2
    assert "2:0 | rank 0 begins" not in followed.stdout


def test_only_named_variables_travel(checkout):
    run = checkout.train(
        "cluster.pass_environment=[WANTED]",
        WANTED="yes", UNWANTED="no", SLURM_JOB_ID="999", SLURM_CPU_BIND="quiet", MASTER_ADDR="x",
    )  # fmt: skip
    assert checkout.wait(run).returncode == 0
    environment = seen(run, 0)["environment"]
    assert environment["WANTED"] == "yes"
    assert "UNWANTED" not in environment
    assert not [name for name in environment if name.startswith("SLURM_")]
    assert environment["MASTER_ADDR"] == "127.0.0.1"


def test_a_secret_reaches_the_job_and_is_written_nowhere(checkout):
    canary = "canary-7f3a9c1e55"
    run = checkout.train(
        "task.api_token='${oc.env:MY_TOKEN}'",
        "cluster.pass_environment=[MY_TOKEN]",
        MY_TOKEN=canary,
    )
    assert checkout.wait(run).returncode == 0
    assert seen(run, 0)["environment"]["MY_TOKEN"] == canary
    (run.folder / "seen-0.json").unlink()
    (run.folder / "seen-1.json").unlink()
    files = [path for path in checkout.runs.rglob("*") if path.is_file()]
    assert [path for path in files if canary.encode() in path.read_bytes()] == []


def test_a_sweep_is_runs_of_their_own(checkout):
    done = checkout.lockgate(
        "train",
        "-m",
        "task=standin",
        "cluster=local",
        "seed=1,2",
        "cluster.tasks_per_node=1",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    trials = json.loads(done.stdout)
    assert len({trial["run"] for trial in trials}) == 2
    assert len({trial["spec_digest"] for trial in trials}) == 2
    assert len({trial["source_digest"] for trial in trials}) == 1
    for trial in trials:
        assert checkout.lockgate("logs", trial["run"], "-f").returncode == 0


def test_the_terminal_is_free_while_the_run_goes_on(checkout):
    run = checkout.train("task.behaviour=hang")  # returns although its output is captured
    assert is_running(int(job_of(run).job_id), job_of(run).process_started)


def _is_rank_of(environ: Path, run) -> bool:
    try:
        content = environ.read_bytes()
    except OSError:
        return False
    return b"SUBMITIT_LOCAL_GLOBALID=" in content and str(run.submitit).encode() in content


@pytest.mark.parametrize("mask", [0o077, 0o000])
def test_the_submitters_umask_neither_closes_a_run_nor_opens_it(checkout, mask):
    before = os.umask(mask)
    try:
        run = checkout.train("task.behaviour=wait")
        until(ranks_begun(run), "both ranks begin")
        signal_ranks(run)  # a second attempt writes new files into old folders
        assert checkout.wait(run).returncode == 0
    finally:
        os.umask(before)
    modes = {
        str(path.relative_to(checkout.runs)): path.lstat().st_mode & 0o777
        for path in [checkout.runs, *checkout.runs.rglob("*")]
        if not path.is_symlink() and run.submitit not in (path, *path.parents)
    }
    assert len(modes) > 20
    assert {name for name, mode in modes.items() if mode & 0o022} == set()
    closed = {name for name, mode in modes.items() if mode & 0o044 != 0o044}
    assert closed == set()
    assert run.submitit.stat().st_mode & 0o777 == 0o700
