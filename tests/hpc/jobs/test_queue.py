from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hpc.cli import ls
from hpc.jobs.errors import SchedulerUnavailable, UnknownRun
from hpc.jobs.local.process import started_ticks
from hpc.jobs.queue import run_states
from hpc.jobs.run.files import JobFile, RankFailure, RunRecord, StatusFile, write_run_file
from hpc.jobs.run.folder import Run, all_runs, find_run
from hpc.jobs.slurm import jobs as slurm_jobs
from hpc.jobs.slurm.backend import slurm_standing
from hpc.jobs.slurm.jobs import SlurmJob
from tests.hpc.jobs.slurm.test_jobs import USER, scontrol_line, squeue_json
from tests.hpc.jobs.spec.test_job_spec import spec_of

DOWN = "squeue: Unable to contact slurm controller"


def slurm(state: str, reason: str = "") -> SlurmJob:
    return SlurmJob("7", "run", USER, state, reason, "squeue")


def job_file(**changes) -> JobFile:
    return replace(JobFile("slurm", "1", "", USER, 2, slurm_conf="/etc/slurm.conf"), **changes)


def record(status: StatusFile | None, cancelled: bool = False) -> RunRecord:
    return RunRecord(Run(Path("/runs/run")), job_file(), status, cancelled, ())


@pytest.mark.parametrize(
    ("written", "cancelled", "job", "silent", "expected"),
    [
        # Before anything was written, Slurm's word is all there is.
        (None, False, slurm("PENDING", "Resources"), None, ("queued", "Resources")),
        (None, False, slurm("RUNNING"), None, ("running", "")),
        (None, False, slurm("NODE_FAIL"), None, ("failed", "node fail")),
        (None, False, slurm("CANCELLED"), None, ("cancelled", "")),
        # A second attempt that waits is not a new run.
        ("requeued", False, slurm("PENDING", "BeginTime"), None, ("requeued", "BeginTime")),
        ("running", False, slurm("REQUEUED"), None, ("requeued", "")),
        # The job's own ending is final, whatever Slurm still says.
        ("finished", False, slurm("COMPLETING"), None, ("finished", "")),
        ("failed", False, None, None, ("failed", "Diverged: loss is nan (rank 1)")),
        ("failed", False, slurm("FAILED"), None, ("failed", "Diverged: loss is nan (rank 1)")),
        # Slurm has it again: a person, or Slurm itself, requeued it.
        ("failed", False, slurm("PENDING", "BeginTime"), None, ("requeued", "nan (rank 1) (Begin")),
        ("failed", False, slurm("REQUEUE_HOLD"), None, ("requeued", "")),
        ("failed", False, slurm("RUNNING"), None, ("running", "")),
        ("failed", False, slurm("COMPLETING"), None, ("ending", "")),
        ("ending", False, slurm("RUNNING"), None, ("running", "")),
        ("running", False, slurm("PENDING", "BeginTime"), None, ("requeued", "BeginTime")),
        ("failed", True, None, None, ("cancelled", "Diverged: loss is nan (rank 1)")),
        (
            "running",
            False,
            slurm("TIMEOUT", "exit code 0"),
            None,
            ("failed", "timeout exit code 0"),
        ),
        # Slurm calls a job completed that never said so: that is no success.
        ("running", False, slurm("COMPLETED"), None, ("failed", "never said")),
        # Not knowing is said, never guessed.
        ("running", False, None, DOWN, ("unknown", "last written: running")),
        (None, False, None, DOWN, ("unknown", "wrote nothing yet")),
        ("running", False, None, None, ("unknown", "Slurm no longer knows")),
        ("running", True, None, DOWN, ("cancelled", "")),
        ("running", False, slurm("NEW_STATE"), None, ("unknown", "Slurm says NEW_STATE")),
    ],
)
def test_the_state_of_a_slurm_run(written, cancelled, job, silent, expected):
    status = StatusFile(written, 1) if written else None
    if written == "failed":
        status = replace(status, error=RankFailure("Diverged", "loss is nan\nmore", 1))
    found = slurm_standing(record(status, cancelled), job, silent)
    assert found.state == expected[0]
    assert expected[1] in found.detail
    assert bool(expected[1]) == bool(found.detail)


def make_run(
    runs: Path, name: str, job: JobFile | None, state: str | None = None, kind: str = "slurm"
) -> Run:
    run = Run(runs / name)
    run.folder.mkdir(parents=True)
    cluster = {"kind": kind, "slurm_conf": "/etc/slurm.conf"}
    spec_of({"steps": 100, "cluster": cluster}).write(run.spec_path)
    if job is not None:
        write_run_file(run.job, job)
    if state is not None:
        write_run_file(run.status, StatusFile(state, 1))  # type: ignore[arg-type]
    return run


class Slurm:
    """Answers what it is told to, and remembers what it was asked."""

    def __init__(self, **answers: str | None) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def __call__(self, command, variables, timeout_s=0.0) -> str:
        self.asked.append(command[0])
        answer = self.answers.get(command[0])
        if answer is None:
            raise SchedulerUnavailable(f"{command[0]}: Unable to contact slurm controller")
        return answer


def states(
    monkeypatch, runs: Path, answers: Slurm, controller: bool = True
) -> dict[str, tuple[str, str]]:
    monkeypatch.setattr(slurm_jobs, "query", answers)
    monkeypatch.setattr(slurm_jobs, "controller_is_up", lambda _: controller)
    return {state.run: (state.state, state.source) for state in run_states(all_runs(runs))}


def test_one_question_to_slurm_for_all_runs(monkeypatch, tmp_path):
    for number in (1, 2, 3):
        make_run(tmp_path, f"t-20260101-00000{number}-aaaaaa", job_file(job_id=str(number)))
    jobs = [(n, f"t-20260101-00000{n}-aaaaaa", "RUNNING") for n in (1, 2, 3)]
    answers = Slurm(squeue=squeue_json(*jobs))
    got = states(monkeypatch, tmp_path, answers)
    assert set(got.values()) == {("running", "squeue")}
    assert answers.asked == ["squeue"]


def test_runs_that_ended_are_not_asked_about(monkeypatch, tmp_path):
    make_run(tmp_path, "t-20260101-000001-aaaaaa", job_file(job_id="1"), "finished")
    answers = Slurm()
    assert states(monkeypatch, tmp_path, answers) == {
        "t-20260101-000001-aaaaaa": ("finished", "status.json")
    }
    assert answers.asked == []


def test_a_failed_run_costs_one_question_and_may_be_in_the_queue_again(monkeypatch, tmp_path):
    for number in (1, 2):
        name = f"t-20260101-00000{number}-aaaaaa"
        make_run(tmp_path, name, job_file(job_id=str(number)), "failed")
    answers = Slurm(squeue=squeue_json((2, "t-20260101-000002-aaaaaa", "PENDING")))
    assert states(monkeypatch, tmp_path, answers) == {
        "t-20260101-000001-aaaaaa": ("failed", "failure.json"),
        "t-20260101-000002-aaaaaa": ("requeued", "squeue"),
    }
    assert answers.asked == ["squeue"]
    answers = Slurm()
    assert set(states(monkeypatch, tmp_path, answers).values()) == {("failed", "failure.json")}
    assert answers.asked == ["squeue"]


@pytest.mark.parametrize("key", ["start_time", "eligible_time"])
def test_a_requeued_run_says_when_it_goes_on(monkeypatch, tmp_path, capsys, key):
    run = make_run(tmp_path, NAME, job_file(job_id="1"), "requeued")
    begin = (datetime.now() + timedelta(seconds=90)).replace(microsecond=0)
    document = json.loads(squeue_json((1, NAME, "PENDING")))
    document["jobs"][0] |= {"state_reason": "BeginTime", key: int(begin.timestamp())}
    monkeypatch.setattr(slurm_jobs, "query", Slurm(squeue=json.dumps(document)))
    monkeypatch.setattr(slurm_jobs, "controller_is_up", lambda _: True)
    (state,) = run_states([run])
    assert datetime.fromisoformat(state.goes_on).timestamp() == begin.timestamp()
    ls._table([state])
    assert f"goes on at {begin:%H:%M:%S}" in capsys.readouterr().out.replace("\n", " ")
    document["jobs"][0]["job_state"] = "RUNNING"
    monkeypatch.setattr(slurm_jobs, "query", Slurm(squeue=json.dumps(document)))
    assert run_states([run])[0].goes_on is None


def test_without_squeue_scontrol_is_asked_and_then_sacct(monkeypatch, tmp_path):
    make_run(tmp_path, "t-20260101-000001-aaaaaa", job_file(job_id="1"))
    make_run(tmp_path, "t-20260101-000002-bbbbbb", job_file(job_id="2"))
    answers = Slurm(
        scontrol=scontrol_line(1, "t-20260101-000001-aaaaaa", "RUNNING"),
        sacct=f"2|{USER}|NODE_FAIL|0:0|t-20260101-000002-bbbbbb\n",
    )
    assert states(monkeypatch, tmp_path, answers) == {
        "t-20260101-000001-aaaaaa": ("running", "scontrol"),
        "t-20260101-000002-bbbbbb": ("failed", "sacct"),
    }
    assert answers.asked == ["squeue", "scontrol", "scontrol", "sacct"]


def test_a_controller_that_is_down_is_not_waited_for(monkeypatch, tmp_path):
    make_run(tmp_path, "t-20260101-000001-aaaaaa", job_file(job_id="1"))
    answers = Slurm(sacct=f"1|{USER}|TIMEOUT|0:0|t-20260101-000001-aaaaaa\n")
    assert states(monkeypatch, tmp_path, answers, controller=False) == {
        "t-20260101-000001-aaaaaa": ("failed", "sacct")
    }
    assert answers.asked == ["sacct"]


def test_a_job_id_that_was_given_out_again_is_not_the_run(monkeypatch, tmp_path):
    make_run(tmp_path, "t-20260101-000001-aaaaaa", job_file(job_id="1"), "running")
    answers = Slurm(
        squeue=squeue_json((1, "somebody-elses", "RUNNING")),
        sacct=f"1|{USER}|FAILED|1:0|somebody-elses\n",
    )
    assert states(monkeypatch, tmp_path, answers) == {
        "t-20260101-000001-aaaaaa": ("unknown", "status.json")
    }


def test_when_nothing_of_slurm_answers_the_state_is_unknown(monkeypatch, tmp_path):
    make_run(tmp_path, "t-20260101-000001-aaaaaa", job_file(job_id="1"), "running")
    assert states(monkeypatch, tmp_path, Slurm()) == {
        "t-20260101-000001-aaaaaa": ("unknown", "status.json")
    }


def test_a_submit_that_was_killed_is_found_by_name_or_called_not_submitted(monkeypatch, tmp_path):
    make_run(tmp_path, "t-20260101-000001-aaaaaa", None)
    make_run(tmp_path, "t-20260101-000002-bbbbbb", None)
    answers = Slurm(squeue=squeue_json((9, "t-20260101-000001-aaaaaa", "PENDING")))
    assert states(monkeypatch, tmp_path, answers) == {
        "t-20260101-000001-aaaaaa": ("queued", "squeue"),
        "t-20260101-000002-bbbbbb": ("not submitted", "job.json"),
    }


def test_a_local_run_is_its_processes(monkeypatch, tmp_path):
    pid = os.getpid()
    here = job_file(kind="local", job_id=str(pid), process_started=started_ticks(pid))
    gone = replace(here, process_started=1)
    make_run(tmp_path, "t-20260101-000001-aaaaaa", here, "running")
    make_run(tmp_path, "t-20260101-000002-bbbbbb", gone, "running")
    assert states(monkeypatch, tmp_path, Slurm()) == {
        "t-20260101-000001-aaaaaa": ("running", "process"),
        "t-20260101-000002-bbbbbb": ("failed", "process"),
    }


def test_progress_is_read_from_the_end_of_metrics(monkeypatch, tmp_path):
    run = make_run(tmp_path, "t-20260101-000001-aaaaaa", job_file(job_id="1"), "finished")
    lines = [{"step": step, "loss": 1.0 / step} for step in range(1, 5000)]
    lines += [{"step": 5000, "validation_auc": 0.7}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    run.metrics.write_text(text + '{"step": 5001, "lo')  # a line that is being written
    monkeypatch.setattr(slurm_jobs, "query", Slurm())
    (state,) = run_states([run])
    assert (state.step, state.steps, state.loss) == (5000, 100, 1.0 / 4999)


def test_a_run_is_found_by_its_end_and_a_typo_by_what_is_near(tmp_path):
    for name in ("flights-20260101-000001-aaaaaa", "lm-20260102-000001-bbbbbb"):
        make_run(tmp_path, name, job_file(job_id="1"))
    (tmp_path / "snapshots" / "abc").mkdir(parents=True)
    assert find_run(tmp_path, "lm").name == "lm-20260102-000001-bbbbbb"
    assert find_run(tmp_path, "aaaaaa").name == "flights-20260101-000001-aaaaaa"
    assert find_run(tmp_path, "last").name == "lm-20260102-000001-bbbbbb"
    with pytest.raises(UnknownRun, match="Nearest: flights-20260101-000001-aaaaaa"):
        find_run(tmp_path, "flights-20260101-000001-aaaaab")
    make_run(tmp_path, "lm-20260103-000001-cccccc", job_file(job_id="2"))
    with pytest.raises(UnknownRun, match="'lm' names 2 runs"):
        find_run(tmp_path, "lm")
    with pytest.raises(UnknownRun, match="no run was submitted yet"):
        find_run(tmp_path / "empty", "lm")


def test_a_job_that_asked_to_go_on_gets_time_to_be_requeued():
    def judged(ended: datetime) -> str:
        status = StatusFile("requeued", 1, ended=ended.isoformat(timespec="seconds"))
        return slurm_standing(record(status), slurm("FAILED", "NonZeroExitCode"), None).state

    now = datetime.now(UTC)
    assert judged(now) == "requeued"
    assert judged(now - timedelta(hours=1)) == "failed"


NAME = "t-20260101-000001-aaaaaa"


@pytest.mark.parametrize(
    "foreign",
    [
        (1, NAME, "COMPLETED", "mallory"),  # the id was given out again, and the name is copied
        (7, NAME, "COMPLETED", "mallory"),
        (7, NAME, "COMPLETED", USER),  # the same user's, by hand
        (7, f"x\n1|{NAME}|COMPLETED|None", "RUNNING", "mallory"),
    ],
)
def test_a_job_that_is_called_like_a_run_does_not_take_its_state(monkeypatch, tmp_path, foreign):
    make_run(tmp_path, NAME, job_file())
    for jobs in ([foreign, (1, NAME, "RUNNING")], [(1, NAME, "RUNNING"), foreign]):
        answers = Slurm(squeue=squeue_json(*jobs))
        assert states(monkeypatch, tmp_path, answers) == {NAME: ("running", "squeue")}
    alone = Slurm(squeue=squeue_json(foreign), sacct="")
    assert states(monkeypatch, tmp_path, alone) == {NAME: ("unknown", "status.json")}


@pytest.mark.parametrize("name", ["job.json", "status.json", "failure.json", "cancelled.json"])
@pytest.mark.parametrize(
    "text", ['{"kin', "[]", "", '{"attempt": "one"}', "[" * 10**6, '{"_target_": "os.getcwd"}']
)
def test_one_broken_run_hides_no_other(monkeypatch, tmp_path, name, text):
    make_run(tmp_path, "t-20260101-000001-aaaaaa", job_file())
    broken = make_run(tmp_path, "t-20260101-000002-bbbbbb", job_file(job_id="2"))
    (broken.folder / name).write_text(text)
    local = make_run(tmp_path, "t-20260101-000003-cccccc", job_file(kind="local"), kind="local")
    (local.folder / name).write_text(text)
    answers = Slurm(squeue=squeue_json((1, "t-20260101-000001-aaaaaa", "RUNNING")), sacct="")
    monkeypatch.setattr(slurm_jobs, "query", answers)
    monkeypatch.setattr(slurm_jobs, "controller_is_up", lambda _: True)
    good, second, third = run_states(all_runs(tmp_path))
    assert (good.state, good.detail) == ("running", "")
    for state in (second, third):
        assert state.state in ("unknown", "failed", "cancelled")
        assert name in state.detail
    if name == "job.json":
        assert (second.state, third.state) == ("unknown", "unknown")


def test_a_run_of_an_unknown_scheduler_is_unknown(monkeypatch, tmp_path):
    make_run(tmp_path, NAME, job_file(kind="pbs"))
    assert states(monkeypatch, tmp_path, Slurm()) == {NAME: ("unknown", "job.json")}
