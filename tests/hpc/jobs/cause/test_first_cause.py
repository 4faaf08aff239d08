"""The first cause among what Slurm, srun and ranks left: not the neighbour's lost connection."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc.jobs.cause.evidence import (
    LauncherLog,
    RankLog,
    SrunEnd,
    ended_orderly,
    last_error,
    parse_launcher,
    ranks_of,
)
from hpc.jobs.cause.first_cause import Evidence, first_cause
from hpc.jobs.cause.job_end import JobEnd
from hpc.jobs.run.files import RankFailure
from hpc.jobs.run.lost_neighbour import is_lost_neighbour

GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [n2]:4"
LOST = (
    f"RuntimeError: {GLOO}",
    "RuntimeError: [../third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting "
    "1800000ms for recv operation to complete",
    "RuntimeError: Application timeout caused pair closure",
    "torch.distributed.DistBackendError: NCCL error in: ../ProcessGroupNCCL.cpp:1970, remote "
    "process exited or there was a network error, NCCL version 2.21.5",
    "torch.distributed.DistNetworkError: The client socket has timed out after 60000ms",
    "torch.distributed.DistStoreError: Timed out after 1801 seconds waiting for clients.",
)
OWN = (
    "FloatingPointError: loss is nan at step 3",
    "Diverged: the loss became nan in step 7",
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
    "ConnectionResetError: [Errno 104] Connection reset by peer",  # of the user's own download
    "torch.distributed.DistBackendError: NCCL error in: x.cpp:1, invalid usage (run with it)",
    "RuntimeError: CUDA error: device-side assert triggered",
)


@pytest.mark.parametrize("error", LOST)
def test_a_lost_neighbour_is_a_consequence(error: str) -> None:
    assert is_lost_neighbour(error)


@pytest.mark.parametrize("error", OWN)
def test_a_ranks_own_error_is_none(error: str) -> None:
    assert not is_lost_neighbour(error)


SRUN = """\
srun: error: n2: task 1: Killed
srun: launch/slurm: _step_signal: Terminating StepId=12.0
slurmstepd: error: *** STEP 12.0 ON n1 CANCELLED AT 2026-11-27T09:10:00 ***
srun: error: n1: task 0: Exited with exit code 1
"""
JOB_ENDED = "slurmstepd: error: *** JOB 12 ON n1 CANCELLED AT 2026-11-27T09:10:00"
KILLED = SrunEnd("n2", (1,), "SIGKILL", 0, False)


def test_sruns_lines() -> None:
    assert parse_launcher(SRUN) == LauncherLog((KILLED, SrunEnd("n1", (0,), "", 1, True)))
    core = parse_launcher("srun: error: n[1-2]: tasks 0,2-3: Segmentation fault (core dumped)\n")
    assert core.ends == (SrunEnd("n[1-2]", (0, 2, 3), "SIGSEGV", 0, False),)
    assert parse_launcher("srun: error: Node failure on n2\n").failed_node == "n2"
    limit = f"{JOB_ENDED} DUE TO TIME LIMIT ***"
    assert parse_launcher(limit).cancelled == "TIME LIMIT"
    oom = "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=12.0. Some of your processes"
    assert parse_launcher(oom).out_of_memory
    # As seen on the box, whose slurmd share a machine.
    own = "slurmstepd-n1: error: Exceeded job memory limit\nsrun: error: n1: task 0: Killed\n"
    assert parse_launcher(own).out_of_memory
    named = limit.replace("slurmstepd:", "slurmstepd-n1:")
    assert parse_launcher(named).cancelled == "TIME LIMIT"


def test_only_the_last_attempt_of_a_requeued_job_counts() -> None:
    requeued = f"{JOB_ENDED} DUE TO JOB REQUEUE ***\n"
    assert parse_launcher(SRUN + requeued) == LauncherLog()
    assert parse_launcher(requeued + SRUN).ends[0] == KILLED


@given(st.text() | st.text(alphabet="srun: eotaskd0,-9[]*\n"))
def test_no_log_breaks_the_parsers(text: str) -> None:
    parse_launcher(text)
    last_error(text)
    assert len(ranks_of(text)) <= 1000


@pytest.mark.parametrize(
    ("tail", "error"),
    [
        ("step 1/5\n", ""),
        ("lockgate: the loss became nan in step 7.\n", "the loss became nan in step 7."),
        ("lockgate: attempt 1 saved and stopped (SIGUSR2)\n", ""),
        ("lockgate: packages changed since submit; see environment.txt\n", ""),
        (f"Traceback (most recent call last):\n  File x\n    f()\nRuntimeError: {GLOO}\n",
         f"RuntimeError: {GLOO}"),
        ("Traceback (most recent call last):\n  a\nKeyError: 'x'\n\nDuring handling of it\n\n"
         "Traceback (most recent call last):\n  b\nValueError: y\nmore\n", "ValueError: y"),
        ("Traceback (most recent call last):\n  cut", ""),
    ],
)  # fmt: skip
def test_the_last_error_of_a_log(tail: str, error: str) -> None:
    assert last_error(tail) == error
    assert ended_orderly(tail) == ("saved and stopped" in tail)


@dataclass(frozen=True)
class Case:
    """Evidence, and what has to be found in it."""

    evidence: Evidence
    rank: int | None
    node: str
    words: str


def failure(text: str, rank: int) -> RankFailure:
    name, _, message = text.partition(": ")
    return RankFailure(name, message, rank)


def steps(state: str, number: int) -> list[JobEnd]:
    return [
        JobEnd("12", state, 1, 0, 1, "n[1-2]", ""),
        JobEnd("12.0", state, 0, number, 0, "n[1-2]", ""),
    ]


SILENT = RankLog(1, "", 5.0)
LOST_0 = RankLog(0, LOST[0], 9.0)
GONE_0 = failure(LOST[0], 0)
CASES = {
    "a killed rank, by srun's line": Case(
        Evidence(GONE_0, (LOST_0, SILENT), parse_launcher(SRUN), exit_code=1),
        1, "n2", "Rank 1 on n2 was ended by SIGKILL",
    ),
    "a killed rank, where only sacct has the signal": Case(
        Evidence(GONE_0, (LOST_0, SILENT), ends=steps("FAILED", 9), exit_code=1),
        1, "", "Rank 1 was ended by SIGKILL",
    ),
    "a killed rank on this machine": Case(
        Evidence(GONE_0, (LOST_0, SILENT)), 1, "", "Rank 1 ended without a word"
    ),
    "one of several silent ranks": Case(
        Evidence(GONE_0, (LOST_0, SILENT, RankLog(2, "", 6.0))), None, "", "One of the ranks 1, 2"
    ),
    "a rank's own error before its neighbour's": Case(
        Evidence(failure(OWN[0], 1), (LOST_0, RankLog(1, OWN[0], 8.0)), rank0_node="n1"),
        1, "", "loss is nan at step 3",
    ),
    "a neighbour that wrote failure.json first": Case(
        Evidence(GONE_0, (LOST_0, RankLog(1, OWN[0], 8.0), RankLog(2, OWN[2], 8.5))),
        1, "", "loss is nan at step 3",
    ),
    "an own error that srun then killed": Case(
        Evidence(
            failure(OWN[0], 1), (RankLog(0, "", 9.0), RankLog(1, OWN[0], 8.0)),
            LauncherLog((replace(KILLED, signal="", exit_code=1), replace(KILLED, ranks=(0,)))),
        ),
        1, "n2", "Rank 1 on n2 failed: FloatingPointError",
    ),
    "an own error, and then an abort": Case(
        Evidence(
            failure(OWN[0], 1), (LOST_0, RankLog(1, OWN[0], 8.0)),
            LauncherLog((replace(KILLED, signal="SIGABRT"),)),
        ),
        1, "n2", "Rank 1 on n2 failed: FloatingPointError",
    ),
    "a failed node": Case(
        Evidence(GONE_0, (LOST_0, SILENT), LauncherLog(failed_node="n2"), slurm_state="NODE_FAIL"),
        None, "n2", "Node n2 failed.",
    ),
    "a failed node that only sacct tells of": Case(
        Evidence(GONE_0, (LOST_0,), ends=steps("NODE_FAIL", 0), slurm_state="NODE_FAIL"),
        None, "", "A node of n[1-2] failed.",
    ),
    "too little memory": Case(
        Evidence(
            GONE_0, (LOST_0, SILENT), parse_launcher(SRUN), slurm_state="OUT_OF_MEMORY",
            limits="cluster.mem_gb=2",
        ),
        1, "n2", "(cluster.mem_gb=2)",
    ),
    "a time limit": Case(
        Evidence(
            rank_logs=(SILENT,), slurm_state="TIMEOUT", limits="cluster.timeout_min=2",
            launcher=LauncherLog((replace(KILLED, after_kill=True),), cancelled="TIME LIMIT"),
        ),
        None, "", "(cluster.timeout_min=2)",
    ),
    "a preemption": Case(Evidence(slurm_state="PREEMPTED"), None, "", "higher priority"),
    "a lost rank that left nothing": Case(
        Evidence(GONE_0, (LOST_0,)), 0, "", "Rank 0 lost another rank"
    ),
    "an exit code alone": Case(Evidence(exit_code=3), None, "", "exit code 3 (the spec"),
    "the processes are gone": Case(
        Evidence(rank_logs=(SILENT,)), None, "", "ended without a word"
    ),
    "nothing": Case(Evidence(), None, "", "Nothing is on record about its end."),
    "little": Case(Evidence(detail="it never finished"), None, "", "but this: it never finished."),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_first_cause(name: str) -> None:
    case = CASES[name]
    cause = first_cause(case.evidence)
    assert case.words in cause.sentence
    assert (cause.rank, cause.node) == (case.rank, case.node)
    assert cause.advice.endswith(".")


def test_the_neighbours_error_is_told_as_what_followed() -> None:
    cause = first_cause(CASES["a killed rank, by srun's line"].evidence)
    assert (cause.signal, cause.source) == ("SIGKILL", "srun")
    assert cause.consequences == (f"rank 0: RuntimeError: {GLOO}",)
    alone = first_cause(Evidence(failure(OWN[0], 0), (RankLog(0, OWN[0], 1.0),)))
    assert alone.consequences == ()


def test_a_kill_from_outside_is_no_ranks_fault() -> None:
    """scancel ends every rank with a signal, all of them after the job's own end."""
    text = f"{JOB_ENDED} ***\n{SRUN}"
    assert first_cause(Evidence(launcher=parse_launcher(text))).sentence == "It was cancelled."
