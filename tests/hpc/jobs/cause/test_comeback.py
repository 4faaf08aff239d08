"""Whether a run comes back: a table of causes, and the bound on attempts without progress."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from hpc.jobs.cause.attempt_end import end_attempt
from hpc.jobs.cause.comeback import Comeback, decide
from hpc.jobs.cause.evidence import RankLog, fatal_signal, hung_in, parse_launcher
from hpc.jobs.cause.first_cause import Evidence, first_cause
from hpc.jobs.rank import status
from hpc.jobs.rank.exit_codes import HANG, LOST_RANK, REFUSED, REQUEUE, TERMINATED, TOO_OFTEN
from hpc.jobs.rank.rendezvous import Rank
from hpc.jobs.run.files import AttemptEndFile, RankFailure, read_status
from hpc.jobs.run.folder import Run
from tests.hpc.jobs.cause.test_first_cause import GLOO, JOB_ENDED, LOST, OWN, SRUN, failure
from tests.hpc.jobs.clusters import slurm_cluster
from tests.hpc.jobs.spec.test_job_spec import spec_of

GONE_0 = failure(LOST[0], 0)
LOST_0 = RankLog(0, LOST[0], 9.0)
SILENT_1 = RankLog(1, "", 5.0)
SEGFAULT = (
    "step 3\nFatal Python error: Segmentation fault\n\nCurrent thread 0x00007f (most recent call "
    'first):\n  File "/x/mine.py", line 7 in forward\n'
)
STACKS = """\
step 3
Timeout: no step ended for 601 s (hang_timeout_s=600)
Thread 0x00007f01 (most recent call first):
  File "/x/watchdog.py", line 9 in _hang_up
Thread 0x00007f02 (most recent call first):
  File "/x/torch/distributed_c10d.py", line 2810 in all_reduce
  File "/x/loop.py", line 5 in train
lockgate: no step ended for 601 s (hang_timeout_s=600)
"""
HUNG = "all_reduce (distributed_c10d.py:2810)"
CASES = {
    "a rank killed with -9": (
        Evidence(GONE_0, (LOST_0, SILENT_1), parse_launcher(SRUN)), "killed",
    ),
    "all ranks killed at once": (
        Evidence(rank_logs=(replace(SILENT_1, rank=0), SILENT_1)), "killed",
    ),
    "a segmentation fault": (
        Evidence(GONE_0, (LOST_0, RankLog(1, "", 5.0, signal="SIGSEGV"))), "killed",
    ),
    "a rank that the kernel killed for its memory": (
        Evidence(GONE_0, (LOST_0, SILENT_1), parse_launcher(
            f"slurmstepd: error: Detected 1 oom_kill event in StepId=1.0\n{SRUN}"
        )), "killed",
    ),
    "a job over its memory": (
        Evidence(GONE_0, (LOST_0, SILENT_1), parse_launcher(
            f"slurmstepd: error: Detected 1 oom-kill event(s) in StepId=1.0\n{SRUN}"
        )), "memory",
    ),
    "a lost connection": (Evidence(GONE_0, (LOST_0, RankLog(1, LOST[1], 9.0))), "lost"),
    "a hang": (
        Evidence(
            watch=RankFailure("Hang", "no step ended", 0), hang="no step ended",
            rank_logs=(RankLog(0, "no step ended", 9.0, hung_in=HUNG), SILENT_1),
            launcher=parse_launcher(SRUN), exit_code=HANG,
        ), "hang",
    ),
    "a hang that only faulthandler's timer saw": (
        Evidence(rank_logs=(RankLog(0, "", 9.0, hung_in=HUNG),)), "hang",
    ),
    "a node": (
        Evidence(GONE_0, (LOST_0,), parse_launcher("srun: error: Node failure on n2")), "node",
    ),
    "a stop that came too late": (
        Evidence(watch=RankFailure("Late", "it was told to stop", 0), exit_code=REQUEUE), "late",
    ),
    "a node that failed its checks": (
        Evidence(watch=RankFailure("UnfitNode", "n2: no room in /dev/shm", 1), exit_code=REQUEUE),
        "node",
    ),
    "an own error": (Evidence(failure(OWN[0], 1), (LOST_0, RankLog(1, OWN[0], 8.0))), "error"),
    "an own error, and a neighbour that left its code first": (
        Evidence(failure(OWN[0], 1), (LOST_0, RankLog(1, OWN[0], 8.0)), exit_code=LOST_RANK),
        "error",
    ),
    "an own error that a neighbour answers with an abort": (
        Evidence(
            failure(OWN[0], 0), (RankLog(0, OWN[0], 8.0), SILENT_1),
            parse_launcher("srun: error: n2: task 1: Aborted\n"),
        ), "error",
    ),
    "an own error, and a crash in the end of a neighbour": (
        Evidence(
            failure(OWN[0], 0), (RankLog(0, OWN[0], 8.0), RankLog(1, "", 9.0, signal="SIGSEGV"))
        ), "error",
    ),
    "a crash, and an error that no table has yet": (
        Evidence(
            failure(OWN[0], 0), (RankLog(0, OWN[0], 8.0), RankLog(1, "", 7.0, signal="SIGSEGV"))
        ), "killed",
    ),
    "divergence": (Evidence(failure(OWN[1], 0), (RankLog(0, OWN[1], 8.0),)), "error"),
    "a config error": (Evidence(failure("ConfigError: optim.lr", 0)), "error"),
    "a refused spec": (Evidence(failure("SpecChanged: x", 0), exit_code=REFUSED), "error"),
    "memory of a GPU": (Evidence(failure(OWN[2], 0)), "error"),
    "a rank that ended itself": (
        Evidence(GONE_0, (LOST_0, SILENT_1), parse_launcher(
            "srun: error: n2: task 1: Exited with exit code 5\n"
        )), "other",
    ),
    "no rank began": (Evidence(), "other"),
}  # fmt: skip
BACK = ("killed", "lost", "hang", "node", "memory", "late")


@pytest.mark.parametrize("name", CASES)
def test_the_outcome_follows_from_the_first_cause(name: str) -> None:
    evidence, kind = CASES[name]
    cause = first_cause(evidence)
    assert cause.kind == kind, cause.sentence
    made = decide("running", cause, evidence.exit_code or 1, 1, 400, 8, cancelled=False)
    assert made.outcome == ("requeued" if kind in BACK else "failed")
    assert (made.exit_code == REQUEUE) == (kind in BACK)
    assert made.sentence == cause.sentence
    if kind not in BACK:
        assert made.exit_code == (REFUSED if "refused" in name else 1)


def test_a_cancelled_run_and_one_that_gets_one_attempt_do_not_come_back() -> None:
    cause = first_cause(CASES["a rank killed with -9"][0])
    cancelled = decide("running", cause, 1, 1, 0, 8, cancelled=True)
    assert (cancelled.outcome, cancelled.exit_code) == ("failed", TERMINATED)
    once = decide("requeued", None, REQUEUE, 0, 400, 0, cancelled=False)
    assert (once.outcome, once.exit_code, once.too_often) == ("failed", TOO_OFTEN, True)
    assert decide("stopped", None, TERMINATED, 0, 4, 8, cancelled=False).outcome == "stopped"
    assert decide("finished", None, 1, 1, 0, 8, cancelled=False) == Comeback(
        "finished", 0, "It finished."
    )


def test_the_last_words_of_a_crash_and_of_a_hang() -> None:
    assert fatal_signal(SEGFAULT) == "SIGSEGV"
    assert (fatal_signal(STACKS), hung_in(STACKS)) == ("", HUNG)
    assert hung_in(SEGFAULT) == ""  # a stack, and no hang


def made_run(tmp_path: Path, max_requeues: int) -> Run:
    run = Run(tmp_path / "run")
    run.logs.mkdir(parents=True)
    cluster = asdict(slurm_cluster(max_requeues=max_requeues))
    spec_of({"steps": 10**6, "cluster": cluster}).write(run.spec_path)
    return run


def checkpoint(run: Run, step: int) -> None:
    folder = run.folder / "checkpoints" / f"{step:08d}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text("{}")


def killed(run: Run, attempt: int, begins: bool = True, steps: int | None = None) -> AttemptEndFile:
    """One attempt, killed after it has written the checkpoint of `steps`, if any."""
    if begins:
        rank = Rank(0, 2, 0, 2, "127.0.0.1", 20005, "5", attempt, local=False)
        status.start_attempt(run, rank)
    (run.logs / f"{attempt}-0.log").write_text(f"Traceback (most recent call last):\nX: {GLOO}\n")
    (run.logs / f"{attempt}-1.log").write_text("step\n")
    if steps is not None:
        checkpoint(run, steps)
    return end_attempt(run, attempt, 137)


def test_an_advancing_run_is_never_given_up(tmp_path: Path) -> None:
    run = made_run(tmp_path, max_requeues=2)
    ends = [killed(run, attempt, steps=100 * attempt) for attempt in range(1, 31)]
    assert {(end.outcome, end.stalled) for end in ends} == {("requeued", 0)}
    written = read_status(run).value
    assert (written.state, written.attempt) == ("requeued", 30)
    assert "Rank 1 ended without a word" in written.error.message


@pytest.mark.parametrize("begins", [True, False], ids=["in training", "before rank 0's report"])
def test_a_run_without_progress_is_given_up_with_a_true_sentence(tmp_path, begins) -> None:
    run = made_run(tmp_path, max_requeues=2)
    assert killed(run, 1, steps=400).outcome == "requeued"
    assert [killed(run, attempt, begins).stalled for attempt in (2, 3)] == [1, 2]
    last = killed(run, 4, begins)
    assert (last.outcome, last.stalled, last.exit_code) == ("failed", 3, TOO_OFTEN)
    assert last.sentence.startswith(
        "3 attempts in a row brought no newer checkpoint than that of step 400, and "
        "cluster.max_requeues allows 2. The last one: Rank 1 ended"
    )
    assert read_status(run).value.state == "failed"
    # A person had Slurm requeue it: the count begins anew.
    assert killed(run, 5).stalled == 1
    assert killed(run, 6, steps=500).stalled == 0


@pytest.mark.parametrize(
    ("lines", "outcome"),
    [
        # srun ends the others of a dead rank by SIGTERM, upon which rank 0 saved.
        (SRUN.replace("exit code 1", "exit code 143"), "requeued"),
        ("srun: error: n1: task 0: Exited with exit code 143\n", "stopped"),
        (f"{JOB_ENDED} ***\n{SRUN}", "stopped"),  # scancel
    ],
)
def test_rank_0_that_saved_because_another_rank_died(tmp_path, lines, outcome) -> None:
    run = made_run(tmp_path, max_requeues=2)
    rank = Rank(0, 2, 0, 2, "127.0.0.1", 20005, "5", 1, local=False)
    status.start_attempt(run, rank)
    status.end_attempt(run, rank, "stopped")
    run.exit_code(1).write_text("143\n")
    run.submitit.mkdir()
    (run.submitit / "5_0_log.err").write_text(f"lockgate: attempt 1 starts\n{lines}")
    end = end_attempt(run, 1, 143)
    assert (end.outcome, end.rank) == (outcome, 1 if outcome == "requeued" else None)


def test_attempts_that_slurm_ended_itself_are_counted(tmp_path: Path) -> None:
    run = made_run(tmp_path, max_requeues=2)
    rank = Rank(0, 2, 0, 2, "127.0.0.1", 20005, "5", 1, local=False)
    status.start_attempt(run, rank)
    status.start_attempt(run, replace(rank, attempt=2))  # the node failed: no end on record
    assert read_status(run).value.stalled == 1
    checkpoint(run, 100)
    status.start_attempt(run, replace(rank, attempt=3))
    assert read_status(run).value.stalled == 0
    assert read_status(run).value.began_after == 100


def test_a_checkpoint_that_was_passed_over_is_no_progress_to_beat(tmp_path: Path) -> None:
    run = made_run(tmp_path, max_requeues=2)
    killed(run, 1, steps=500)
    status.start_attempt(run, Rank(0, 2, 0, 2, "127.0.0.1", 20005, "5", 2, local=False))
    status.resume_attempt(run, 400)  # that of step 500 did not verify
    (run.folder / "checkpoints" / "00000500" / "manifest.json").unlink()
    checkpoint(run, 450)
    assert end_attempt(run, 2, 137).stalled == 0
