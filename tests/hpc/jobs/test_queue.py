from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hpc.jobs import queue
from hpc.jobs.errors import SchedulerUnavailable, UnknownRun
from hpc.jobs.marker import write_marker
from hpc.jobs.process import started_ticks
from hpc.jobs.queue import JobState, judge, parse_sacct, parse_scontrol, parse_squeue, run_states
from hpc.jobs.run import Run, all_runs, find_run
from tests.hpc.jobs.test_spec import spec_of

DOWN = "squeue: Unable to contact slurm controller"


def slurm(state: str, reason: str = "") -> JobState:
    return JobState("7", "run", state, reason, "squeue")


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
def test_judging_a_run(written, cancelled, job, silent, expected):
    status = {"state": written} if written else {}
    if written == "failed":
        status["error"] = {"type": "Diverged", "message": "loss is nan\nmore", "rank": 1}
    state, detail, _ = judge(status, cancelled, job, silent)
    assert state == expected[0]
    assert expected[1] in detail
    assert bool(expected[1]) == bool(detail)


def test_slurms_outputs_are_read():
    assert parse_squeue("12|run-a|RUNNING|None\n13|run-b|PENDING|Resources\n\n") == [
        JobState("12", "run-a", "RUNNING", "", "squeue"),
        JobState("13", "run-b", "PENDING", "Resources", "squeue"),
    ]
    shown = "JobId=12 JobName=run-a UserId=x(1) JobState=FAILED Reason=NonZeroExitCode Requeue=1\n"
    assert parse_scontrol(shown + "No jobs in the system\n") == [
        JobState("12", "run-a", "FAILED", "NonZeroExitCode", "scontrol")
    ]
    rows = "12|run-a|CANCELLED by 999|0:15\n12.batch|batch|FAILED|15:0\n13|run-b|FAILED|3:0\n"
    assert parse_sacct(rows) == [
        JobState("12", "run-a", "CANCELLED", "exit code 0", "sacct"),
        JobState("13", "run-b", "FAILED", "exit code 3", "sacct"),
    ]


def make_run(runs: Path, name: str, job: dict | None, status: dict | None = None) -> Run:
    run = Run(runs / name)
    run.folder.mkdir(parents=True)
    cluster = {"kind": "slurm", "slurm_conf": "/etc/slurm.conf"}
    spec_of({"steps": 100, "cluster": cluster}).write(run.spec_path)
    if job is not None:
        write_marker(run.job, {"slurm_conf": "/etc/slurm.conf", "kind": "slurm"} | job)
    if status is not None:
        write_marker(run.status, status)
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
    monkeypatch.setattr(queue, "ask", answers)
    monkeypatch.setattr(queue, "controller_is_up", lambda _: controller)
    return {state.run: (state.state, state.source) for state in run_states(all_runs(runs))}


def test_one_question_to_slurm_for_all_runs(monkeypatch, tmp_path):
    for number in (1, 2, 3):
        make_run(tmp_path, f"t-20260101-00000{number}-aaaaaa", {"job_id": str(number)})
    lines = "".join(f"{n}|t-20260101-00000{n}-aaaaaa|RUNNING|None\n" for n in (1, 2, 3))
    answers = Slurm(squeue=lines)
    got = states(monkeypatch, tmp_path, answers)
    assert set(got.values()) == {("running", "squeue")}
    assert answers.asked == ["squeue"]


def test_runs_that_ended_are_not_asked_about(monkeypatch, tmp_path):
    make_run(tmp_path, "t-20260101-000001-aaaaaa", {"job_id": "1"}, {"state": "finished"})
    answers = Slurm()
    assert states(monkeypatch, tmp_path, answers) == {
        "t-20260101-000001-aaaaaa": ("finished", "status.json")
    }
    assert answers.asked == []


def test_without_squeue_scontrol_is_asked_and_then_sacct(monkeypatch, tmp_path):
    make_run(tmp_path, "t-20260101-000001-aaaaaa", {"job_id": "1"})
    make_run(tmp_path, "t-20260101-000002-bbbbbb", {"job_id": "2"})
    answers = Slurm(
        scontrol="JobId=1 JobName=t-20260101-000001-aaaaaa JobState=RUNNING Reason=None\n",
        sacct="2|t-20260101-000002-bbbbbb|NODE_FAIL|0:0\n",
    )
    assert states(monkeypatch, tmp_path, answers) == {
        "t-20260101-000001-aaaaaa": ("running", "scontrol"),
        "t-20260101-000002-bbbbbb": ("failed", "sacct"),
    }
    assert answers.asked == ["squeue", "scontrol", "sacct"]


def test_a_controller_that_is_down_is_not_waited_for(monkeypatch, tmp_path):
    make_run(tmp_path, "t-20260101-000001-aaaaaa", {"job_id": "1"})
    answers = Slurm(sacct="1|t-20260101-000001-aaaaaa|TIMEOUT|0:0\n")
    assert states(monkeypatch, tmp_path, answers, controller=False) == {
        "t-20260101-000001-aaaaaa": ("failed", "sacct")
    }
    assert answers.asked == ["sacct"]


def test_a_job_id_that_was_given_out_again_is_not_the_run(monkeypatch, tmp_path):
    make_run(tmp_path, "t-20260101-000001-aaaaaa", {"job_id": "1"}, {"state": "running"})
    answers = Slurm(squeue="1|somebody-elses|RUNNING|None\n", sacct="1|somebody-elses|FAILED|1:0\n")
    assert states(monkeypatch, tmp_path, answers) == {
        "t-20260101-000001-aaaaaa": ("unknown", "status.json")
    }


def test_when_nothing_of_slurm_answers_the_state_is_unknown(monkeypatch, tmp_path):
    make_run(tmp_path, "t-20260101-000001-aaaaaa", {"job_id": "1"}, {"state": "running"})
    assert states(monkeypatch, tmp_path, Slurm()) == {
        "t-20260101-000001-aaaaaa": ("unknown", "status.json")
    }


def test_a_submit_that_was_killed_is_found_by_name_or_called_not_submitted(monkeypatch, tmp_path):
    make_run(tmp_path, "t-20260101-000001-aaaaaa", None)
    make_run(tmp_path, "t-20260101-000002-bbbbbb", None)
    answers = Slurm(squeue="9|t-20260101-000001-aaaaaa|PENDING|Priority\n")
    assert states(monkeypatch, tmp_path, answers) == {
        "t-20260101-000001-aaaaaa": ("queued", "squeue"),
        "t-20260101-000002-bbbbbb": ("not submitted", "job.json"),
    }


def test_a_local_run_is_its_processes(monkeypatch, tmp_path):
    here = {"kind": "local", "job_id": os.getpid(), "process_started": started_ticks(os.getpid())}
    gone = {"kind": "local", "job_id": os.getpid(), "process_started": 1}
    make_run(tmp_path, "t-20260101-000001-aaaaaa", here, {"state": "running"})
    make_run(tmp_path, "t-20260101-000002-bbbbbb", gone, {"state": "running"})
    assert states(monkeypatch, tmp_path, Slurm()) == {
        "t-20260101-000001-aaaaaa": ("running", "process"),
        "t-20260101-000002-bbbbbb": ("failed", "process"),
    }


def test_progress_is_read_from_the_end_of_metrics(monkeypatch, tmp_path):
    run = make_run(tmp_path, "t-20260101-000001-aaaaaa", {"job_id": "1"}, {"state": "finished"})
    lines = [{"step": step, "loss": 1.0 / step} for step in range(1, 5000)]
    lines += [{"step": 5000, "validation_auc": 0.7}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    run.metrics.write_text(text + '{"step": 5001, "lo')  # a line that is being written
    monkeypatch.setattr(queue, "ask", Slurm())
    (state,) = run_states([run])
    assert (state.step, state.steps, state.loss) == (5000, 100, 1.0 / 4999)


def test_a_run_is_found_by_its_end_and_a_typo_by_what_is_near(tmp_path):
    for name in ("flights-20260101-000001-aaaaaa", "lm-20260102-000001-bbbbbb"):
        make_run(tmp_path, name, {"job_id": "1"})
    (tmp_path / "snapshots" / "abc").mkdir(parents=True)
    assert find_run(tmp_path, "lm").name == "lm-20260102-000001-bbbbbb"
    assert find_run(tmp_path, "aaaaaa").name == "flights-20260101-000001-aaaaaa"
    assert find_run(tmp_path, "last").name == "lm-20260102-000001-bbbbbb"
    with pytest.raises(UnknownRun, match="Nearest: flights-20260101-000001-aaaaaa"):
        find_run(tmp_path, "flights-20260101-000001-aaaaab")
    make_run(tmp_path, "lm-20260103-000001-cccccc", {"job_id": "2"})
    with pytest.raises(UnknownRun, match="'lm' names 2 runs"):
        find_run(tmp_path, "lm")
    with pytest.raises(UnknownRun, match="no run was submitted yet"):
        find_run(tmp_path / "empty", "lm")


def test_a_job_that_asked_to_go_on_gets_time_to_be_requeued():
    def judged(ended: datetime) -> str:
        written = {"state": "requeued", "ended": ended.isoformat(timespec="seconds")}
        return judge(written, False, slurm("FAILED", "NonZeroExitCode"), None)[0]

    now = datetime.now(UTC)
    assert judged(now) == "requeued"
    assert judged(now - timedelta(hours=1)) == "failed"
