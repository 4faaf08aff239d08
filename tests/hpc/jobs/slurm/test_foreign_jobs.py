"""Whatever another user's job is called, the states of our jobs come out exactly.

Slurm's programs are stood in for at their standard output, in bytes.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc.jobs.errors import error_line
from hpc.jobs.exporter.poll import count_jobs, jobs_in_queue
from hpc.jobs.rank.rendezvous import node_address
from hpc.jobs.slurm import commands
from hpc.jobs.slurm.jobs import WantedJob, find_jobs, parse_squeue
from hpc.jobs.slurm.nodes import parse_nodes
from tests.hpc.jobs.slurm.test_jobs import USER, scontrol_line, squeue_json

A, B = "t-20260101-000001-aaaaaa", "t-20260101-000002-bbbbbb"
WANTED = [WantedJob(A, USER, "1"), WantedJob(B, USER, "2")]
SYNTAX = (
    *(A, B, "|", "\n", "\r", "\r\n", "\x0b", "\x1c", "\x85", "\u2028", "\u2029", '"}]}', "=", " "),
    *(
        f"x JobId=1 JobName={A} UserId={USER}(1) JobState=COMPLETED",
        f"\n1|{USER}|COMPLETED|0:0|{A}",
    ),
    f"\r2|{USER}|FAILED|1:0|{B}\r",
)
NAMES = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4)
    | st.sampled_from(SYNTAX),
    min_size=1,
).map("".join)


def states(answers: Mapping[str, object]) -> dict[str, str]:
    """The states of our two jobs, where each program prints its part of `answers`."""

    def run(command: Sequence[str], **_: object) -> SimpleNamespace:
        answer = answers.get(command[0])
        if callable(answer):
            answer = answer(command)
        if answer is None:
            return SimpleNamespace(returncode=1, stdout=b"", stderr=b"error: Invalid job id\n")
        return SimpleNamespace(returncode=0, stdout=str(answer).encode(), stderr=b"")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands.subprocess, "run", run)
        patch.setattr(commands.shutil, "which", lambda program: program)
        found, reason = find_jobs(WANTED, {})
    assert reason is None
    return {name: job.state for name, job in found.items()}


def ping_or(show):
    return lambda command: "Slurmctld(primary) is UP" if command[1] == "ping" else show(command)


UP = ping_or(lambda _: None)


@given(NAMES, st.sampled_from(["mallory", f"{USER}x", f"x{USER}"]), st.permutations([0, 1, 2]))
def test_squeue(name, user, order):
    rows = [(1, A, "RUNNING"), (2, B, "PENDING"), (3, name, "COMPLETED", user)]
    text = squeue_json(*(rows[place] for place in order))
    assert states({"scontrol": UP, "squeue": text}) == {A: "RUNNING", B: "PENDING"}
    # With the letters as they are, as a later Slurm may print them.
    plain = json.dumps(json.loads(text), ensure_ascii=False)
    assert states({"scontrol": UP, "squeue": plain}) == {A: "RUNNING", B: "PENDING"}
    # The same id, given out again, and the same name are not enough: the user is another one.
    taken = squeue_json((1, A, "COMPLETED", user), (2, B, "PENDING"))
    assert states({"scontrol": UP, "squeue": taken, "sacct": ""}) == {B: "PENDING"}


@given(NAMES)
def test_squeue_counts_every_job_of_the_queue(name):
    jobs = parse_squeue(squeue_json((1, A, "RUNNING"), (3, name, "PENDING", "mallory")))
    counted = count_jobs(jobs_in_queue(jobs), {"gpu"})
    assert (counted["gpu", "running"], counted["gpu", "pending"]) == (1, 1)


@given(NAMES)
def test_scontrol(name):
    """Asked about one job at a time; the id of the second was given out again, to `name`."""

    def show(command):
        mine = scontrol_line(1, A, "RUNNING")
        foreign = scontrol_line(2, name, "COMPLETED").replace(f"UserId={USER}(", "UserId=mallory(")
        return {"1": mine, "2": foreign}[command[-1]]

    assert states({"scontrol": ping_or(show), "sacct": ""}) == {A: "RUNNING"}


@given(NAMES)
def test_sacct(name):
    """It is asked about our own user; a job of ours with an odd name hides no other."""
    if "\n" in name:  # Slurm's accounting keeps one line of a name
        name = name.partition("\n")[0]
    rows = f"3|{USER}|COMPLETED|0:0|{name}\n1|{USER}|TIMEOUT|0:0|{A}\n"
    rows += f"4|{USER}|FAILED|1:0|{name}\n2|{USER}|NODE_FAIL|0:0|{B}\n"
    assert states({"sacct": rows}) == {A: "TIMEOUT", B: "NODE_FAIL"}


@given(st.text(st.characters(exclude_characters="\n|"), min_size=1).filter(str.strip), NAMES)
def test_sinfo(partition, name):
    text = f"n1|idle|{partition}\nn2|down*|{partition}\nn3|{'mixed'}|b\n"
    nodes, partitions = parse_nodes(text)
    assert (nodes["idle"], nodes["down"], nodes["mixed"]) == (1, 1, 1)
    assert partitions == {partition.strip(), "b"}


@given(NAMES)
def test_scontrol_show_node(reason):
    shown = f"NodeName=n1 Arch=x86_64\n   NodeAddr=10.0.0.7 NodeHostName=vm\n   Reason={reason}\n"
    assert node_address(shown) == "10.0.0.7"
    assert node_address(shown.replace("n1", "n1", 1) + " NodeAddr=6.6.6.6") == "10.0.0.7"


@given(NAMES)
def test_the_error_of_a_command_is_one_sentence(name):
    line = error_line(f"sbatch: error: {name}\nsbatch: error: Batch job submission failed\n")
    assert "\n" not in line and line.endswith("Batch job submission failed")


def test_carriage_returns_reach_the_parsers_as_they_are(tmp_path, monkeypatch):
    program = tmp_path / "squeue"
    program.write_text("#!/bin/sh\nprintf 'a\\rb\\r\\nc\\377'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert commands.query(["squeue"], {}) == "a\rb\r\nc\ufffd"
    assert subprocess.run(["squeue"], capture_output=True).returncode == 0
