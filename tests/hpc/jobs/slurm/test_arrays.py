"""Ids of array tasks in the shapes of Slurm 22.05 and 23.02; the array's script to the letter."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc.jobs.run.array import RunArray
from hpc.jobs.run.folder import Run
from hpc.jobs.slurm import sbatch
from hpc.jobs.slurm.arrays import job_ids, record_ids, task_numbers
from hpc.jobs.slurm.jobs import (
    SlurmJob,
    WantedJob,
    parse_sacct,
    parse_scontrol,
    parse_squeue,
)
from hpc.jobs.why.queued_jobs import parse_queued_jobs
from tests.hpc.jobs.slurm.test_sbatch import CLUSTER

GOLDEN = Path(__file__).with_name("array.sh")
ARRAY = RunArray(
    Path("/runs/sweeps/lr/lr-20260102-030405-abcdef"),
    tuple(Run(Path(f"/runs/flights-20260102-03040{number}-abcdef")) for number in range(3)),
)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("3", [3]),
        ("0-3", [0, 1, 2, 3]),
        ("2-9:3%4", [2, 5, 8]),
        ("[1,4-6%2]", [1, 4, 5, 6]),
        ("", []),
        ("1-", []),
        ("0-99999999", []),
        ("1-4:0", []),
        ("N/A", []),
    ],
)
def test_numbers_of_tasks(text: str, numbers: list[int]) -> None:
    assert task_numbers(text) == numbers


@given(st.lists(st.integers(0, 500), min_size=1, unique=True), st.integers(1, 99))
def test_every_list_of_tasks_comes_back(numbers: list[int], throttle: int) -> None:
    text = ",".join(map(str, numbers))
    assert task_numbers(f"{text}%{throttle}") == numbers
    assert job_ids(f"12_[{text}%{throttle}]") == [f"12_{number}" for number in numbers]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("12", ["12"]),
        ("12_3", ["12_3"]),
        ("12.batch", []),
        ("12_3.0", []),
        ("12_", []),
        ("", []),
        ("x_1", []),
    ],
)
def test_ids_of_an_accounting_line(text: str, ids: list[str]) -> None:
    assert job_ids(text) == ids


def number(value: int) -> dict[str, Any]:
    return {"set": True, "infinite": False, "number": value}


@pytest.mark.parametrize(
    ("record", "ids"),
    [
        ({"job_id": 9, "array_job_id": 0, "array_task_id": None}, ["9"]),
        ({"job_id": 9, "array_job_id": None, "array_task_string": ""}, ["9"]),
        ({"job_id": 9, "array_job_id": 7, "array_task_id": 2}, ["7_2"]),
        ({"job_id": 7, "array_job_id": 7, "array_task_string": "3-4%2"}, ["7_3", "7_4"]),
        (
            {"job_id": 9, "array_job_id": number(7), "array_task_id": number(0)},
            ["7_0"],
        ),
        ({"job_id": 9, "array_job_id": {"set": False, "number": 0}}, ["9"]),
        ({"job_id": 9, "array_job_id": "7", "array_task_id": []}, ["9"]),
    ],
)
def test_ids_of_a_record_of_the_queue(record: dict[str, Any], ids: list[str]) -> None:
    assert record_ids(record) == ids


def queue(*records: dict[str, Any]) -> str:
    common = {"name": "lr", "user_name": "ann", "state_reason": "None", "job_state": "PENDING"}
    return json.dumps({"errors": [], "jobs": [{**common, **one} for one in records]})


def test_each_task_of_an_array_is_a_job_pending_or_not() -> None:
    text = queue(
        {"job_id": 7, "array_job_id": 7, "array_task_string": "2-3"},
        {"job_id": 8, "array_job_id": 7, "array_task_id": 1, "job_state": "RUNNING"},
        {"job_id": 5, "array_job_id": 0, "array_task_id": None},
    )
    found = [(job.job_id, job.state) for job in parse_squeue(text)]
    assert found == [("7_2", "PENDING"), ("7_3", "PENDING"), ("7_1", "RUNNING"), ("5", "PENDING")]
    assert [job.task_ids for job in parse_queued_jobs(text)] == [("7_2", "7_3"), ("7_1",), ()]


def test_tasks_in_scontrols_and_sacct_s_words() -> None:
    rest = (
        "UserId=ann(1001) GroupId=x(1) Priority=1 JobState=PENDING Reason=Resources Dependency= "
        "Power= "
    )
    line = f"JobId=7 ArrayJobId=7 ArrayTaskId=2-3%1 ArrayTaskThrottle=1 JobName=lr {rest}\n"
    assert [(job.job_id, job.name) for job in parse_scontrol(line)] == [
        ("7_2", "lr"),
        ("7_3", "lr"),
    ]
    line = f"JobId=8 ArrayJobId=7 ArrayTaskId=1 JobName=lr {rest}\n"
    assert [job.job_id for job in parse_scontrol(line)] == ["7_1"]
    rows = "7_[2-3%1]|ann|PENDING|0:0|lr\n7_1|ann|FAILED|3:0|lr\n7_1.batch|ann|FAILED|3:0|batch\n"
    assert [(job.job_id, job.state) for job in parse_sacct(rows)] == [
        ("7_2", "PENDING"),
        ("7_3", "PENDING"),
        ("7_1", "FAILED"),
    ]


@pytest.mark.parametrize(
    ("job_id", "name", "user", "matches"),
    [
        ("7_2", "lr", "ann", True),
        ("7_12", "lr", "ann", False),
        ("7_2", "lr", "bob", False),
        ("7_2", "other", "ann", False),
    ],
)
def test_a_task_is_its_runs_by_number_name_and_user(job_id, name, user, matches) -> None:
    job = SlurmJob(job_id, name, user, "PENDING", "", "squeue")
    assert WantedJob("lr", "ann", "7_2", "run", 2).matches(job) == matches
    # A submit that was interrupted before the id was written.
    assert WantedJob("lr", "ann", "", "run", 2).matches(job) == matches


def test_the_script_of_an_array_is_the_golden_one(monkeypatch) -> None:
    monkeypatch.setattr(sys, "executable", "/venv/bin/python")
    assert sbatch.array_script(replace(CLUSTER, sweep_parallel=2), ARRAY) == GOLDEN.read_text()


def test_dry_run_and_submit_send_the_same_array(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("submitit.SlurmExecutor.affinity", classmethod(lambda _: 2))
    array = replace(ARRAY, folder=tmp_path / "lr")
    sent = sbatch.array_executor(CLUSTER, array)
    sent.parameters["map_count"] = 3
    text = sent._make_submission_file_text(sent._submitit_command_str, uid="x")
    assert text == sbatch.array_script(CLUSTER, array)
    assert "#SBATCH --array=0-2%3\n" in text  # no throttle: all of them
