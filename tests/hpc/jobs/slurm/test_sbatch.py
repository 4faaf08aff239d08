"""The batch script, to the letter: `batch.sh` beside this file is what a person gets to see."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from hpc.jobs.run.files import (
    AttemptEndFile,
    FailureFile,
    RankFailure,
    read_run_file,
    write_run_file,
)
from hpc.jobs.run.folder import Run
from hpc.jobs.slurm import sbatch
from tests.hpc.jobs.clusters import slurm_cluster
from tests.hpc.jobs.spec.test_job_spec import spec_of

REPO = Path(__file__).resolve().parents[4]
GOLDEN = Path(__file__).with_name("batch.sh")
RUN = Run(Path("/runs/flights-20260102-030405-abcdef"))
CLUSTER = slurm_cluster(
    partition="gpu",
    nodes=2,
    tasks_per_node=1,
    gpus_per_node=1,
    cpus_per_task=3,
    mem_gb=1.5,
    timeout_min=60,
    signal_delay_s=90,
)


def test_the_script_is_the_golden_one(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/venv/bin/python")
    assert sbatch.script(CLUSTER, RUN) == GOLDEN.read_text()


def test_dry_run_and_submit_send_the_same_script(monkeypatch, tmp_path):
    monkeypatch.setattr("submitit.SlurmExecutor.affinity", classmethod(lambda _: 2))
    run = Run(tmp_path / "run")
    sent = sbatch.executor(CLUSTER, run)
    text = sent._make_submission_file_text(sent._submitit_command_str, uid="x")
    assert text == sbatch.script(CLUSTER, run)


def test_what_is_null_is_left_to_the_cluster():
    text = sbatch.script(replace(CLUSTER, partition=None, mem_gb=None, gpus_per_node=0), RUN)
    assert [word for word in ("--partition", "--mem", "--gpus", "--account") if word in text] == []


def test_more_options_are_passed_through():
    text = sbatch.script(replace(CLUSTER, additional_parameters={"constraint": "h200"}), RUN)
    assert "#SBATCH --constraint=h200\n" in text


def test_options_that_are_off_or_null_make_no_line():
    text = sbatch.script(
        replace(CLUSTER, additional_parameters={"exclusive": False, "nice": None, "hold": True}),
        RUN,
    )
    assert "#SBATCH --hold\n" in text
    assert [word for word in ("exclusive", "nice", "False", "None") if word in text] == []


@pytest.mark.parametrize(
    "parameters", [{"requeue": False}, {"array": "0-3"}, {"comment": "a\n#SBATCH --uid=0"}]
)
def test_no_option_reaches_the_script_that_breaks_it(parameters):
    with pytest.raises(ValueError, match="additional_parameters"):
        sbatch.script(replace(CLUSTER, additional_parameters=parameters), RUN)


def test_a_percent_sign_in_the_folder_of_runs_is_one_in_slurms_patterns():
    lines = sbatch.script(CLUSTER, Run(Path("/runs/100%done/x-20260102-030405-abcdef"))).split("\n")
    folder = "/runs/100%%done/x-20260102-030405-abcdef/submitit"
    assert f"#SBATCH --output={folder}/%j_0_log.out" in lines
    assert f"#SBATCH --error={folder}/%j_0_log.err" in lines
    assert "#SBATCH --chdir=/runs/100%done/x-20260102-030405-abcdef" in lines
    (srun,) = (shlex.split(line) for line in lines if line.startswith("srun"))
    # srun takes the last of two.
    assert [word for word in srun if word.startswith("--output")][-1] == (
        f"--output={folder}/%j_%t_log.out"
    )
    assert [word for word in srun if word.startswith("--error")][-1] == (
        f"--error={folder}/%j_%t_log.err"
    )
    assert srun.index("--output") < srun.index(f"--output={folder}/%j_%t_log.out")


def end_batch(tmp_path: Path, run: Run, srun: int, program: bool = True) -> tuple[int, str]:
    """(exit code, arguments of scontrol) of the lines after an srun that ended with `srun`."""
    asked = tmp_path / "asked"
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" > "{asked}"\nexit 1\n')
    scontrol.chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", "\n".join([f"(exit {srun})", *sbatch.ending(run)])],
        cwd=tmp_path,
        env={
            "PATH": f"{scontrol.parent}:/usr/bin:/bin",
            "PYTHONPATH": str(REPO),
            "SLURM_RESTART_COUNT": "1",
            "SLURM_JOB_ID": "12",
            **({} if program else {"PYTHONHOME": "/nowhere"}),
        },
    )
    return done.returncode, asked.read_text() if asked.exists() else ""


def made_run(tmp_path: Path, left: int | None) -> Run:
    """A run whose ranks left the code `left` in their second attempt."""
    run = Run(tmp_path / "a run")
    run.logs.mkdir(parents=True)
    spec_of({"steps": 5, "cluster": asdict(CLUSTER)}).write(run.spec_path)
    if left is not None:
        run.exit_code(2).write_text(f"{left}\n")
    return run


def test_a_run_that_saved_and_a_killed_rank_are_requeued(tmp_path):
    run = made_run(tmp_path, 76)
    (run.logs / "2-0.log").write_text(
        "Traceback (most recent call last):\n  File x\nRuntimeError: TCPStore is gone\n"
    )
    (run.logs / "2-1.log").write_text("step 3\n")
    assert end_batch(tmp_path, run, srun=137) == (75, "requeue 12\n")
    end = read_run_file(AttemptEndFile, run.attempt_end(2)).value
    assert (end.kind, end.rank, end.stalled) == ("killed", 1, 1)


def test_an_own_error_is_not(tmp_path):
    run = made_run(tmp_path, 76)  # the neighbour was the first to leave a code
    error = RankFailure("Diverged", "the loss became nan", 1)
    write_run_file(run.failure, FailureFile(2, "now", error))
    assert end_batch(tmp_path, run, srun=1) == (1, "")


@pytest.mark.parametrize(
    ("srun", "left", "ends_with", "requeues"),
    [
        (0, None, 0, False),  # finished
        (1, None, 1, False),  # srun itself failed
        (143, 3, 3, False),  # one rank refused, and srun killed the other
        (75, 75, 75, True),  # saved before the limit
        (0, 75, 75, True),
    ],
)
def test_without_the_program_the_ranks_code_counts(tmp_path, srun, left, ends_with, requeues):
    ended = end_batch(tmp_path, made_run(tmp_path, left), srun, program=False)
    assert ended == (ends_with, "requeue 12\n" if requeues else "")


@pytest.mark.parametrize(
    ("words", "tries"),
    [
        ("slurm_requeue error: Unable to contact slurm controller (connect failure)", 3),
        ("slurm_requeue error: Socket timed out on send/recv operation", 3),
        ("slurm_requeue error: Zero Bytes were transmitted or received", 3),
        ("slurm_requeue error: Communication connection failure", 3),
        ("Unexpected message received for job 12", 3),  # seen while slurmctld came back
        ("slurm_requeue error: Job is pending execution", 1),  # an operator was faster
        ("slurm_requeue error: Access/permission denied", 1),
    ],
)
def test_a_requeue_waits_for_slurmctld_and_for_nothing_else(tmp_path, words, tries):
    programs = tmp_path / "bin"
    programs.mkdir()
    scontrol = (
        f'echo "$@" >> "{tmp_path}/asked"\n[ $(wc -l < "{tmp_path}/asked") -ge 3 ] || '
        f'{{ echo "{words}" >&2; exit 1; }}\n'
    )
    for name, text in (("scontrol", scontrol), ("sleep", "exit 0\n")):
        (programs / name).write_text(f"#!/bin/sh\n{text}")
        (programs / name).chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", "\n".join(["(exit 75)", *sbatch.ending(made_run(tmp_path, 75))])],
        env={"PATH": f"{programs}:/usr/bin:/bin", "PYTHONHOME": "/nowhere",
             "SLURM_RESTART_COUNT": "1", "SLURM_JOB_ID": "12"},
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 75
    assert (tmp_path / "asked").read_text() == "requeue 12\n" * tries
    assert done.stderr.count(words) == min(tries, 2)
