"""The queue as `squeue --json` prints it, and the jobs that hold another back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from hpc.jobs.why.queued_jobs import QueuedJob, blocking, parse_queued_jobs

RECORD = {
    "job_id": 14, "name": "mine", "user_name": "ann", "job_state": "PENDING",
    "state_reason": "Priority", "state_description": "", "partition": "gpu", "priority": 4294901756,
    "submit_time": 1000, "eligible_time": 1000, "start_time": 2000, "end_time": 0,
    "dependency": "", "scheduled_nodes": "n1", "restart_cnt": 0,
}  # fmt: skip
JOB = QueuedJob(
    "14", "mine", "ann", "PENDING", "Priority", "", "gpu", 4294901756, 1000, 1000, 2000, 0, "", "n1"
)


def queue(*records: Any) -> str:
    return json.dumps({"meta": {}, "errors": [], "jobs": list(records)})


def test_the_json_of_22_05_and_of_newer_versions() -> None:
    number = {"set": True, "infinite": False, "number": 2000}
    newer = {"start_time": number, "job_state": ["PENDING"], "end_time": {**number, "set": False}}
    assert parse_queued_jobs(queue(RECORD, RECORD | newer)) == [JOB, JOB]


def test_slurms_sentence_beside_the_word() -> None:
    text = "ReqNodeNotAvail, UnavailableNodes:n[1-2]"
    (job,) = parse_queued_jobs(queue(RECORD | {"state_reason": text, "state_description": text}))
    assert (job.reason, job.description) == ("ReqNodeNotAvail", text)


@pytest.mark.parametrize(
    "odd",
    [None, 3, [], {}, {"job_id": "14"}, {"job_id": 1, "name": None}, {"job_id": True, "name": "x"}],
)
def test_an_odd_record_costs_itself_alone(odd: Any) -> None:
    assert parse_queued_jobs(queue(odd, RECORD)) == [JOB]


def test_odd_fields_become_unknown() -> None:
    odd = {"start_time": "soon", "priority": -1, "end_time": 1 << 70, "partition": None}
    (job,) = parse_queued_jobs(queue(RECORD | odd))
    assert (job.start_s, job.priority, job.end_s, job.partition) == (0, 0, 0, "")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"jobs": 1}', "[" * 100_000])
def test_what_is_no_queue_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_queued_jobs(text)


def test_jobs_before_it_and_jobs_that_run() -> None:
    running = replace(JOB, job_id="9", name="long", user="bob", state="RUNNING", end_s=3000)
    before = replace(JOB, job_id="13", name="other", user="bob")
    others = [
        replace(JOB, job_id="15", name="later"),
        replace(JOB, job_id="12", name="elsewhere", partition="cpu"),
        replace(JOB, job_id="11", name="held", reason="JobHeldUser"),
        replace(JOB, job_id="10", name="done", state="COMPLETED"),
    ]
    found = blocking(JOB, [running, before, JOB, *others], str)
    assert found == [
        "1 job before it in the queue: 13 (other of bob)",
        "1 job running in gpu: 9 (long of bob); 9 ends by 3000",
    ]
    assert blocking(JOB, [JOB, *others], str) == []
    assert blocking(replace(JOB, reason="JobHeldUser"), [running, before], str) == []


def test_a_dependency_is_named_and_a_hostile_name_is_not_printed() -> None:
    waits = replace(JOB, reason="Dependency", dependency="afterok:7(unfulfilled)")
    assert blocking(waits, [], str) == ["it depends on 'afterok:7(unfulfilled)'"]
    hostile = replace(JOB, job_id="3", name="\x1b[2J" + "x" * 500, user="eve")
    (sentence,) = blocking(JOB, [hostile], str)
    assert sentence.isprintable() and len(sentence) < 150
