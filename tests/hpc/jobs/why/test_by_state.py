"""`lockgate why` in every state of a run, with Slurm's answers as texts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hpc.cli.main import main
from hpc.jobs.errors import SchedulerUnavailable
from hpc.jobs.run.files import (
    CancelFile,
    FailureFile,
    JobFile,
    RankFailure,
    StatusFile,
    write_run_file,
)
from hpc.jobs.run.folder import Run
from hpc.jobs.slurm import jobs
from hpc.jobs.why import ended, wait
from hpc.nodes.checks import NodeCheck
from hpc.nodes.report import NodeReport, write_report
from hpc.train.manifest import seal_checkpoint
from tests.hpc.jobs.cause.test_first_cause import GLOO, SRUN
from tests.hpc.jobs.spec.test_job_spec import spec_of
from tests.hpc.jobs.why.test_capacity import NODE

NAME = "tiny-20260101-000001-aaaaaa"
CLUSTER = {
    "kind": "slurm", "partition": "gpu", "account": None, "qos": None, "nodes": 2,
    "tasks_per_node": 1, "gpus_per_node": 1, "cpus_per_task": 1, "mem_gb": 2.0, "timeout_min": 60,
    "signal_delay_s": 90, "max_requeues": 8, "exclude": None, "slurm_conf": None,
    "scratch": "/tmp", "pass_environment": [], "additional_parameters": {},
}  # fmt: skip
USER = Path(__file__).owner()
RUNNING = {"job_id": 9, "name": "long", "user_name": "bob", "job_state": "RUNNING"}


def in_minutes(minutes: int) -> int:
    """A time from now, in seconds since 1970."""
    return int((datetime.now(UTC) + timedelta(minutes=minutes)).timestamp())


def iso_now() -> str:
    return datetime.now(UTC).isoformat()


def job(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """The run's job in squeue: submitted 12 minutes ago, expected to start in 30."""
    record = {
        "job_id": 14, "name": NAME, "user_name": USER, "job_state": "PENDING",
        "state_reason": "Resources", "state_description": "", "partition": "gpu", "priority": 5,
        "submit_time": in_minutes(-12), "start_time": in_minutes(30), "scheduled_nodes": "n[1-2]",
    }  # fmt: skip
    return record | (changes or {})


class Slurm:
    """Slurm's commands with the texts that they answer; one without a text does not answer."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {"sacct": ""}

    def queue(self, *records: dict[str, Any]) -> None:
        self.texts["squeue"] = json.dumps({"errors": [], "jobs": records})

    def query(self, command: Sequence[str], variables: Any, timeout_s: float = 0) -> str:
        key = "node" if command[-1] == "node" else command[0]
        if key not in self.texts:
            raise SchedulerUnavailable(f"{key} does not answer")
        return self.texts[key]


@pytest.fixture()
def slurm(monkeypatch: pytest.MonkeyPatch) -> Slurm:
    stand_in = Slurm()
    for module in (jobs, wait, ended):
        monkeypatch.setattr(module, "query", stand_in.query)
    monkeypatch.setattr(jobs, "controller_is_up", lambda variables: "squeue" in stand_in.texts)
    return stand_in


@pytest.fixture()
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("LOCKGATE_SITE", str(tmp_path))
    made = Run(tmp_path / "runs" / NAME)
    made.logs.mkdir(parents=True)
    spec_of({"steps": 500, "cluster": CLUSTER}).write(made.spec_path)
    write_run_file(made.job, JobFile("slurm", "14", iso_now(), USER, 2))
    return made


@pytest.fixture()
def why(capsys: pytest.CaptureFixture[str]) -> Callable[[], dict[str, Any]]:
    def answer() -> dict[str, Any]:
        assert main(["why", NAME, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return answer


def test_a_waiting_run(run, slurm, why, capsys) -> None:
    waits = job()
    slurm.queue(waits, job(RUNNING | {"end_time": in_minutes(30)}))
    slurm.texts["node"] = NODE.replace("CPUAlloc=3", "CPUAlloc=13")
    slurm.texts["sacct"] = "".join(
        f"{job}|2026-11-27T08:00:00|2026-11-27T09:00:00|2026-11-27T09:0{job}:00|2|gres/gpu=2\n"
        for job in (2, 4, 6)
    )
    found = why()
    waiting = found["waiting"]
    assert (found["state"], found["unanswered"]) == ("queued", [])
    assert waiting["reason"]["word"] == "Resources"
    assert "9 (long of bob)" in waiting["blocked_by"][0]
    assert datetime.fromisoformat(waiting["expected_start"]).timestamp() == waits["start_time"]
    assert waiting["expected_nodes"] == "n[1-2]"
    assert waiting["history"] == {
        "jobs": 3, "same_size": True, "median_s": 240, "longest_s": 360
    }  # fmt: skip
    assert waiting["smaller"] == ["cluster.nodes=1"]
    assert main(["why", NAME]) == 0
    text = capsys.readouterr().out
    for words in (
        f"{NAME} queued: The nodes that it could use are busy.", "12m", "on n[1-2]",
        "3 requests of this size", "4m (median), 6m at most",
        "with these it has room now: cluster.nodes=1",
    ):  # fmt: skip
        assert words in text


def test_parts_that_slurm_does_not_answer_cost_themselves_alone(run, slurm, why) -> None:
    slurm.queue(job())
    del slurm.texts["sacct"]
    found = why()
    assert found["waiting"]["reason"]["word"] == "Resources"
    assert found["unanswered"] == [
        "earlier waits: sacct does not answer", "the free nodes: node does not answer",
    ]  # fmt: skip


def test_a_job_of_this_name_that_is_another_users_is_not_believed(run, slurm, why) -> None:
    slurm.queue(job(), job({"job_id": 15, "user_name": "eve", "state_reason": "JobHeldUser"}))
    assert why()["waiting"]["reason"]["word"] == "Resources"


def test_a_request_that_has_room_waits_for_its_turn(run, slurm, why) -> None:
    slurm.queue(job({"state_reason": "Priority"}))
    slurm.texts["node"] = f"{NODE}\n{NODE.replace('NodeName=n1', 'NodeName=n2')}"
    assert why()["waiting"]["fits_now"] is True


def test_a_held_run_is_given_the_command_to_type(run, slurm, why) -> None:
    slurm.queue(job({"state_reason": "JobHeldUser"}))
    reason = why()["waiting"]["reason"]
    assert (reason["advice"], reason["never"]) == ("Let it go on: scontrol release 14", True)


def test_a_requeued_run_goes_on_from_its_checkpoint(run, slurm, why) -> None:
    begin = in_minutes(2)
    slurm.queue(job({"state_reason": "BeginTime", "start_time": 0, "eligible_time": begin}))
    write_run_file(run.status, StatusFile("requeued", 1, ended=iso_now()))
    found = why()
    assert found["state"] == "requeued"
    assert found["sentence"].startswith("Attempt 2 begins when it starts.")
    assert datetime.fromisoformat(found["waiting"]["expected_start"]).timestamp() == begin


def test_a_run_between_two_attempts(run, slurm, why) -> None:
    slurm.queue(job({"job_state": "FAILED", "state_reason": "NonZeroExitCode"}))
    write_run_file(run.status, StatusFile("requeued", 1, ended=iso_now()))
    assert why()["waiting"]["reason"]["word"] == "Cleaning"
    slurm.queue(job({"job_state": "CONFIGURING", "state_reason": "None"}))
    assert why()["waiting"]["reason"]["word"] == "Configuring"


@pytest.mark.parametrize(
    ("states", "sentence"),
    [
        ("n1|idle\nn3|mixed#\n", "Its nodes are chosen, and node n3 is being brought up."),
        ("n3|allocated#\nn4|idle#\nn4|idle#\n",
         "Its nodes are chosen, and nodes n3, n4 are being brought up."),
        ("n1|mixed\nn3|idle~\n", "Its nodes are chosen, and are being made ready."),
    ],
)  # fmt: skip
def test_a_run_whose_node_is_being_brought_up(run, slurm, why, states: str, sentence: str) -> None:
    slurm.queue(job({"job_state": "CONFIGURING", "state_reason": "None", "nodes": "n[1-3]"}))
    slurm.texts["sinfo"] = states
    assert why()["sentence"] == sentence
    del slurm.texts["sinfo"]
    found = why()
    assert found["sentence"] == "Its nodes are chosen, and are being made ready."
    assert any("its nodes: sinfo does not answer" in part for part in found["unanswered"])


def test_a_run_that_waits_after_an_unfit_node_names_it(run, slurm, why, capsys) -> None:
    slurm.queue(job())
    write_run_file(run.status, StatusFile("requeued", 2, ended=iso_now()))
    full = NodeCheck("scratch", "0 MB free", "/tmp has 0 MB left")
    for attempt, checks in ((1, [full]), (2, [NodeCheck("scratch", "9 GB free")])):
        write_report(run, NodeReport("n2", attempt, 1, 0.1, checks))
    assert main(["why", NAME]) == 0
    assert "not fit" not in capsys.readouterr().out, "the newest attempt had no such node"
    write_report(run, NodeReport("n1", 2, 0, 0.1, [full]))
    run.excluded_nodes.write_text("n1,n2\n")
    assert main(["why", NAME]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "checks attempt 2: node n1 is not fit to train: /tmp has 0 MB left" in shown
    assert "left out n1,n2" in shown


def checkpoint(run: Run, step: int) -> Path:
    """A checkpoint that verifies, of two ranks."""
    folder = run.folder / "checkpoints" / f"{step:08d}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text("weights")
    seal_checkpoint(folder, step, 2, "digest")
    return folder


def test_what_has_room_for_a_checkpoint_keeps_its_ranks(run, slurm, why) -> None:
    slurm.queue(job())
    slurm.texts["node"] = NODE.replace("CPUAlloc=3", "CPUAlloc=13")
    write_run_file(run.status, StatusFile("requeued", 1, ended=iso_now()))
    assert why()["waiting"]["smaller"] == ["cluster.nodes=1"]
    checkpoint(run, 400)
    found = why()
    assert found["sentence"].startswith("Attempt 2 goes on after step 400 when it starts.")
    assert found["waiting"]["smaller"] == []


def killed_rank(run: Run) -> None:
    """A run whose rank 1 was killed: rank 0 lost it, and srun ended the job."""
    write_run_file(run.status, StatusFile("running", 1, node="n1", job_id="14"))
    error = RankFailure("RuntimeError", GLOO, 0)
    write_run_file(run.failure, FailureFile(1, iso_now(), error))
    run.metrics.write_text('{"step": 440, "loss": 0.25}\n')
    (run.folder / "checkpoints" / "00000400").mkdir(parents=True)
    (run.logs / "1-0.log").write_text(
        "checkpoint 00000300 is not used: manifest.json is missing\nresumed after step 200\n"
        f"Traceback (most recent call last):\n  File x\nRuntimeError: {GLOO}\n"
    )
    (run.logs / "1-1.log").write_text("rank 1\n")
    (run.logs / "1.exit").write_text("1\n")


def test_a_killed_rank(run, slurm, why, capsys) -> None:
    killed_rank(run)
    run.submitit.mkdir()
    (run.submitit / "14_0_log.err").write_text(SRUN)
    slurm.texts["sacct"] = f"14|FAILED|1:0|1:0|n[1-2]|2026-11-27T09:00:00|Unknown|{NAME}\n"
    found = why()
    cause, progress = found["ending"]["cause"], found["ending"]["progress"]
    assert (cause["rank"], cause["node"], cause["signal"]) == (1, "n2", "SIGKILL")
    assert found["sentence"] == cause["sentence"]
    assert cause["consequences"] == [f"rank 0: RuntimeError: {GLOO}"]
    assert found["ending"]["start"] == {
        "step": 200, "passed_over": [{"step": 300, "fault": "manifest.json is missing"}]
    }  # fmt: skip
    # The one of step 400 has no manifest.
    assert (progress["checkpoint_step"], progress["lost_steps"]) == (0, 440)
    assert main(["why", NAME]) == 0
    text = capsys.readouterr().out
    for words in (
        f"{NAME} failed: Rank 1 on n2 was ended by SIGKILL", "followed by",
        "began        attempt 1 began after step 200", "the checkpoint of step 300: manifest.json",
        "440 steps",
    ):  # fmt: skip
        assert words in text


def test_the_newest_checkpoint_that_verifies_is_gone_on_from(run, slurm, why) -> None:
    killed_rank(run)
    checkpoint(run, 300)
    (checkpoint(run, 420) / "model.safetensors").write_text("WEIGHTS")
    progress = why()["ending"]["progress"]
    assert (progress["checkpoint_step"], progress["lost_steps"]) == (300, 140)
    assert [one["step"] for one in progress["passed_over"]] == [420, 400]
    assert "sha256 differs" in progress["passed_over"][0]["fault"]


def test_without_srun_and_sacct_the_silent_rank_is_named(run, slurm, why) -> None:
    killed_rank(run)
    del slurm.texts["sacct"]
    found = why()
    assert found["sentence"].startswith("Rank 1 ended without a word")
    assert found["unanswered"] == ["sacct: sacct does not answer"]


def test_a_failed_node_that_only_slurm_saw(run, slurm, why) -> None:
    write_run_file(run.status, StatusFile("running", 1, node="n1"))
    row = f"14|{USER}|NODE_FAIL|1:0|{NAME}\n"
    slurm.texts |= {"sacct": row}
    slurm.queue(job({"job_state": "NODE_FAIL", "state_reason": "NodeDown"}))
    assert why()["sentence"] == "A node of the job failed."


def test_sacct_rows_of_another_job_with_this_id_are_not_believed(run, slurm, why) -> None:
    killed_rank(run)
    slurm.texts["sacct"] = "14|OUT_OF_MEMORY|0:125|0:0|n1|2026-11-27T09:00:00|Unknown|other\n"
    assert why()["sentence"].startswith("Rank 1 ended without a word")


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ("finished", "It finished after 440 steps; nothing is wrong."),
        ("running", "It runs on n1: attempt 1, at step 440 of 500."),
        ("cancelled", "It was cancelled by ann at noon, at step 440 of 500."),
    ],
)
def test_one_sentence(state, sentence, run, slurm, why) -> None:
    run.metrics.write_text('{"step": 440, "loss": 0.25}\n')
    slurm.queue(job({"job_state": "RUNNING" if state == "running" else "CANCELLED"}))
    status = StatusFile("running", 1, node="n1")
    write_run_file(run.status, replace(status, state="finished") if state == "finished" else status)
    if state == "cancelled":
        write_run_file(run.cancelled, CancelFile("ann", "noon"))
    found = why()
    assert (found["state"], found["sentence"]) == (state, sentence)
    assert found["waiting"] is found["ending"] is None


def test_a_run_that_was_never_submitted_and_a_silent_slurm(run, slurm, why) -> None:
    slurm.texts.clear()
    assert why()["sentence"].startswith("Its state is not known: the Slurm controller")
    run.job.unlink()
    slurm.queue()
    assert "submit was interrupted" in why()["sentence"]


def test_a_run_of_this_machine(run, why) -> None:
    run.spec_path.unlink()
    spec_of({"steps": 500, "cluster": CLUSTER | {"kind": "local"}}).write(run.spec_path)
    killed_rank(run)
    gone = JobFile("local", "4194304", iso_now(), USER, 2, process_started=1)
    write_run_file(run.job, gone)
    found = why()
    assert found["sentence"].startswith("Rank 1 ended without a word")
    run.failure.unlink()
    run.exit_code(1).unlink()
    run.logs.joinpath("1-0.log").write_text("step 3\n")
    assert why()["sentence"].startswith("Its ranks ended without a word")


def test_another_run_word_is_answered_with_the_nearest(run, capsys) -> None:
    assert main(["why", NAME[:-1] + "b"]) == 2
    assert f"Nearest: {NAME}" in capsys.readouterr().err
