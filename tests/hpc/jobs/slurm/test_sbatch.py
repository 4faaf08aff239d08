"""The batch script, to the letter: `batch.sh` beside this file is what a person gets to see."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hpc.jobs.run.folder import Run
from hpc.jobs.slurm import sbatch
from tests.hpc.jobs.clusters import slurm_cluster

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


@pytest.mark.parametrize(
    ("srun", "said", "ends_with", "requeues"),
    [
        (0, None, 0, False),  # finished
        (1, None, 1, False),  # srun itself failed
        (143, 3, 3, False),  # one rank refused, and srun killed the other
        (75, 75, 75, True),  # saved before the limit
        (0, 75, 75, True),
    ],
)
def test_the_ending_keeps_the_ranks_code_and_requeues(tmp_path, srun, said, ends_with, requeues):
    run = Run(tmp_path / "a run")
    run.logs.mkdir(parents=True)
    if said is not None:
        run.exit_code(2).write_text(f"{said}\n")
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" > "{tmp_path}/asked"\nexit 1\n')
    scontrol.chmod(0o755)
    script = "\n".join([f"(exit {srun})", *sbatch.ending(run)])
    done = subprocess.run(
        ["bash", "-c", script],
        env={
            "PATH": f"{scontrol.parent}:/usr/bin:/bin",
            "SLURM_RESTART_COUNT": "1",
            "SLURM_JOB_ID": "12",
        },
    )
    assert done.returncode == ends_with
    assert (tmp_path / "asked").exists() == requeues
    if requeues:
        assert (tmp_path / "asked").read_text() == "requeue 12\n"
