"""Slurm's output in the shapes of 22.05, under names that anybody may give to a job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc.jobs.slurm.jobs import SlurmJob, parse_sacct, parse_scontrol, parse_squeue

USER = Path(__file__).owner()
SYNTAX = (
    *("|", "\n", '"}]}', "JobId=99", " JobState=COMPLETED", " UserId=root(0)", " Reason=None"),
    *("12|root|COMPLETED|0:0|b", f"JobId=2 JobName=b UserId={USER}(1) JobState=FAILED Reason="),
)
# sbatch takes any bytes but NUL. Pieces of the formats' own syntax come up more often than chance.
NAMES = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
    | st.sampled_from(SYNTAX),
    min_size=1,
).map("".join)


def squeue_json(*jobs: tuple) -> str:
    """`squeue --json` of (id, name, state[, user[, partition]]) rows."""
    rows = []
    for job_id, name, state, *more in jobs:
        user, partition = [*more, *[USER, "gpu"][len(more) :]]
        rows.append(
            {
                "job_id": job_id, "name": name, "job_state": state, "user_name": user,
                "partition": partition, "state_reason": "None", "state_description": "",
            }
        )  # fmt: skip
    return json.dumps({"meta": {}, "errors": [], "jobs": rows})


def scontrol_line(job_id: int, name: str, state: str, reason: str = "None") -> str:
    return (
        f"JobId={job_id} JobName={name} UserId={USER}(1001) GroupId=train(1001) MCS_label=N/A "
        f"Priority=1 Nice=0 Account=(null) QOS=normal JobState={state} Reason={reason} "
        "Dependency=(null) Requeue=1 Restarts=0 BatchFlag=1 ExitCode=0:0 Command=/a.sh Power= \n"
    )


def test_slurms_outputs_are_read():
    document = json.loads(squeue_json((12, "run-a", "RUNNING"), (13, "run-b", "PENDING")))
    document["jobs"][1]["state_reason"] = "Resources"
    assert parse_squeue(json.dumps(document)) == [
        SlurmJob("12", "run-a", USER, "RUNNING", "", "squeue", "gpu"),
        SlurmJob("13", "run-b", USER, "PENDING", "Resources", "squeue", "gpu"),
    ]
    assert parse_scontrol(scontrol_line(12, "run-a", "FAILED", "NonZeroExitCode")) == [
        SlurmJob("12", "run-a", USER, "FAILED", "NonZeroExitCode", "scontrol")
    ]
    assert parse_scontrol("No jobs in the system\n") == []
    rows = (
        "12|me|CANCELLED by 999|0:15|run-a\n12.batch|me|FAILED|15:0|batch\n13|me|FAILED|3:0|run-b\n"
    )
    assert parse_sacct(rows) == [
        SlurmJob("12", "run-a", "me", "CANCELLED", "exit code 0", "sacct"),
        SlurmJob("13", "run-b", "me", "FAILED", "exit code 3", "sacct"),
    ]


def test_states_that_newer_slurms_list_end_with_the_flag():
    assert parse_squeue(squeue_json((1, "a", ["CANCELLED", "COMPLETING"])))[0].state == "COMPLETING"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"jobs": 1}', '{"jobs": [], "errors": ["no"]}'])
def test_what_is_no_list_of_jobs_is_an_error(text):
    with pytest.raises(ValueError):
        parse_squeue(text)


def test_a_squeue_without_its_controller_is_not_an_empty_queue():
    # As 22.05 prints it, with exit code 0.
    error = {"description": "Failed while looking for jobs", "error_number": -1}
    with pytest.raises(ValueError, match="Failed while looking for jobs"):
        parse_squeue(json.dumps({"meta": {}, "errors": [error], "jobs": []}))


@given(NAMES)
def test_squeue_carries_every_name(name):
    text = squeue_json((1, "a", "RUNNING"), (2, name, "PENDING"), (3, "b", "RUNNING"))
    assert [(job.job_id, job.name, job.state) for job in parse_squeue(text)] == [
        ("1", "a", "RUNNING"), ("2", name, "PENDING"), ("3", "b", "RUNNING"),
    ]  # fmt: skip


@given(NAMES)
def test_scontrol_carries_a_name_or_drops_the_job(name):
    jobs = parse_scontrol(scontrol_line(7, name, "PENDING"))
    carried = [SlurmJob("7", name, USER, "PENDING", "", "scontrol")]
    assert jobs in ([], carried)
    if not {"\n", "="} & set(name):
        assert jobs == carried


@given(NAMES)
def test_sacct_carries_every_name_of_one_line_and_no_name_hides_another_job(name):
    rows = f"1|u|RUNNING|0:0|a\n2|u|FAILED|3:0|{name}\n3|u|RUNNING|0:0|b\n"
    jobs = parse_sacct(rows)
    assert SlurmJob("1", "a", "u", "RUNNING", "", "sacct") in jobs
    assert SlurmJob("3", "b", "u", "RUNNING", "", "sacct") in jobs
    if "\n" not in name:
        assert [job.name for job in jobs] == ["a", name, "b"]
        assert jobs[1].reason == "exit code 3"
