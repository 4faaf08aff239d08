"""Whole runs through the box's real Slurm (`scripts/site up` first), as the training user.

The stand-in task trains nothing; spec, snapshot, sbatch, srun, signals and accounting are real.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from conf import compose
from hpc.jobs.run.files import JobFile, StatusFile, read_run_file
from hpc.jobs.run.folder import Run
from tests.hpc.jobs.standin import make_checkout, publish_toy

pytestmark = [pytest.mark.site, pytest.mark.timeout(300)]
SITE = compose("site").site
HELD = "+cluster.additional_parameters.hold=true"  # stays in the queue until it is released


@dataclass(frozen=True)
class BoxCheckout:
    """A checkout that the training user can read, and folders that it owns."""

    root: Path
    home: Path

    @property
    def runs(self) -> Path:
        return self.home / "runs"

    @property
    def overrides(self) -> list[str]:
        """The box's Slurm, with runs and data of this test alone."""
        return [f"site.paths.runs={self.runs}", f"site.paths.data={self.home / 'data'}"]

    def lockgate(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": os.environ["PATH"], "PYTHONPATH": str(self.root), "HOME": str(self.home),
            "LOCKGATE_SITE": str(SITE.root), **variables,
        }  # fmt: skip
        user = pwd.getpwnam(str(SITE.users.train))
        return subprocess.run(
            [sys.executable, "-m", "hpc.cli.main", *words, *self.overrides],
            cwd=self.root, env=environment, capture_output=True, text=True, timeout=200,
            user=user.pw_uid, group=user.pw_gid, extra_groups=[], umask=0o022,
        )  # fmt: skip

    def train(self, *overrides: str, **variables: str) -> Run:
        done = self.lockgate(
            "train",
            "task=standin",
            "--json",
            "cluster.mem_gb=1",
            "cluster.preflight_s=0",  # it imports torch, for which the stand-in has no need
            *overrides,
            **variables,
        )
        assert done.returncode == 0, done.stderr
        return Run(Path(json.loads(done.stdout)["folder"]))


@pytest.fixture()
def box() -> Iterator[BoxCheckout]:
    if not Path(SITE.paths.slurm_conf).is_file():
        pytest.fail("the site in a box is not up: scripts/site up")
    home = Path(tempfile.mkdtemp(prefix="lockgate-site-test-", dir="/tmp"))
    made = BoxCheckout(make_checkout(home / "checkout"), home)
    publish_toy(home)
    made.runs.mkdir()
    for path in (home, made.runs):
        shutil.chown(path, str(SITE.users.train))
        path.chmod(0o755)
    yield made
    for path in made.runs.glob("*/job.json"):
        job_id = job_of(Run(path.parent))
        slurm("scancel", job_id)
        until(lambda job_id=job_id: gone(job_id), "the job leaves the queue")
    subprocess.run(["chmod", "-R", "u+w", str(home)], check=True)
    shutil.rmtree(home)


def job_of(run: Run) -> str:
    job = read_run_file(JobFile, run.job).value
    assert job is not None
    return job.job_id


def slurm(*command: str) -> str:
    environment = os.environ | {"SLURM_CONF": str(SITE.paths.slurm_conf)}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=True
    ).stdout


def until(condition: Callable[[], object], what: str, patience_s: float = 120) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"never saw: {what}"
        time.sleep(0.2)


def gone(job_id: str) -> bool:
    states = "--states=pending,running,completing,suspended"
    return not slurm("squeue", "--noheader", "--format=%i", states, f"--jobs={job_id}").strip()


def accounting(run: Run) -> tuple[str, str]:
    """(state, exit code) in sacct, once slurmdbd has the job's end."""
    job_id = job_of(run)
    rows: list[list[str]] = []

    def ended() -> bool:
        command = ("sacct", "-X", "-n", "-P", f"--jobs={job_id}", "--format=State,ExitCode")
        rows[:] = [line.split("|") for line in slurm(*command).splitlines()]
        return bool(rows) and rows[-1][0] not in ("PENDING", "RUNNING", "COMPLETING", "REQUEUED")

    until(ended, "the job's end in sacct")
    return rows[-1][0], rows[-1][1]


def ranks_begun(run: Run) -> Callable[[], bool]:
    return lambda: len(list(run.folder.glob("seen-*.json"))) == 2


def test_two_nodes_train_what_was_submitted(box):
    run = box.train("cluster.pass_environment=[WANTED]", HELD, WANTED="yes", UNWANTED="no")
    assert listed(box)["state"] == "queued"
    loop = box.root / "hpc" / "train" / "loop.py"
    loop.write_text(loop.read_text().replace("as submitted", "as edited"))
    task = box.root / "conf" / "task" / "standin.yaml"
    task.write_text(task.read_text().replace("hello", "goodbye"))
    slurm("scontrol", "release", job_of(run))
    followed = box.lockgate("logs", run.name, "-f")
    assert followed.returncode == 0, followed.stdout
    ranks = [json.loads((run.folder / f"seen-{rank}.json").read_text()) for rank in (0, 1)]
    assert [rank["word"] for rank in ranks] == ["as submitted"] * 2
    assert [rank["greeting"] for rank in ranks] == ["hello"] * 2
    first, second = (rank["environment"] for rank in ranks)
    assert {first["SLURMD_NODENAME"], second["SLURMD_NODENAME"]} == {"n1", "n2"}
    assert (first["WORLD_SIZE"], second["RANK"], second["LOCAL_RANK"]) == ("2", "1", "0")
    assert first["MASTER_ADDR"] == second["MASTER_ADDR"]
    assert first["SLURM_CPUS_PER_TASK"] == "1"
    assert first["CUDA_VISIBLE_DEVICES"] == "0"
    assert first["WANTED"] == "yes"
    assert "UNWANTED" not in first
    assert accounting(run) == ("COMPLETED", "0:0")


def test_a_failed_training_is_failed_in_accounting(box):
    run = box.train("task.behaviour=fail")
    followed = box.lockgate("logs", run.name, "-f")
    assert followed.returncode == 1
    assert "FloatingPointError: loss is nan at step 3 (rank 1)" in followed.stdout
    state, _ = accounting(run)
    assert state == "FAILED"


def test_a_changed_spec_is_refused_with_a_code_of_its_own(box):
    run = box.train("task.behaviour=wait")
    until(ranks_begun(run), "both ranks at work")
    run.spec_path.chmod(0o644)
    run.spec_path.write_text(run.spec_path.read_text().replace("hello", "goodbye"))
    requeue_now(run)
    followed = box.lockgate("logs", run.name, "-f")
    assert followed.returncode == 1
    assert "was changed after submit" in followed.stdout
    assert accounting(run) == ("FAILED", "3:0")


def test_cancel_comes_back_when_the_job_is_gone(box):
    run = box.train("task.behaviour=hang")
    until(ranks_begun(run), "both ranks at work")
    done = box.lockgate("cancel", run.name, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "cancelled"
    assert gone(job_of(run))
    assert (run.folder / "checkpoints").is_dir(), "the ranks were given time to save"
    assert accounting(run)[0].startswith("CANCELLED")


def test_an_operators_requeue_goes_on_from_where_it_was(box):
    run = box.train("task.behaviour=wait")
    until(ranks_begun(run), "both ranks at work")
    requeue_now(run)
    followed = box.lockgate("logs", run.name, "-f")
    assert followed.returncode == 0, followed.stdout
    assert read_run_file(StatusFile, run.status).value.attempt == 2
    assert accounting(run) == ("COMPLETED", "0:0")


def test_the_signal_before_the_time_limit_requeues_the_job(box):
    run = box.train("task.behaviour=wait")
    until(ranks_begun(run), "both ranks at work")
    job_id = job_of(run)
    # What slurmctld sends cluster.signal_delay_s before the time limit.
    slurm("scancel", "--signal=USR2", job_id)
    until(lambda: restarts(job_id) == 1, "the batch script requeued the job")
    start_again(job_id)
    followed = box.lockgate("logs", run.name, "-f")
    assert followed.returncode == 0, followed.stdout
    assert "attempt 1 saved and stopped (SIGUSR2)" in followed.stdout
    assert read_run_file(StatusFile, run.status).value.attempt == 2
    assert accounting(run) == ("COMPLETED", "0:0")


def test_a_queued_run_can_be_cancelled(box):
    run = box.train(HELD)
    done = box.lockgate("cancel", "last")
    assert (done.returncode, done.stdout) == (0, f"{run.name} is gone: cancelled\n")
    assert gone(job_of(run))
    assert listed(box)["state"] == "cancelled"


def test_a_killed_rank_brings_the_run_back(box):
    run = box.train("task.behaviour=first")
    until(ranks_begun(run), "both ranks at work")
    job_id = job_of(run)
    os.kill(rank_process(job_id, 1), signal.SIGKILL)
    until(lambda: restarts(job_id) == 1, "the batch script requeued the job")
    state = listed(box)
    assert (state["state"], state["attempt"]) == ("requeued", 1)
    assert "was ended by SIGKILL" in state["detail"]
    until(lambda: listed(box)["goes_on"], "Slurm has a time at which it goes on")
    why = json.loads(box.lockgate("why", run.name, "--json").stdout)
    end = why["attempts"][0]
    assert (end["kind"], end["rank"], end["signal"]) == ("killed", 1, "SIGKILL")
    assert end["node"] in ("n1", "n2")
    start_again(job_id)
    followed = box.lockgate("logs", run.name, "-f")
    assert followed.returncode == 0, followed.stdout
    assert accounting(run) == ("COMPLETED", "0:0")


def test_a_failed_run_that_a_person_requeues_is_in_the_queue(box):
    run = box.train("task.behaviour=fail")
    job_id = job_of(run)
    until(lambda: listed(box)["state"] == "failed", "its own error ends the run")
    assert restarts(job_id) == 0
    slurm("scontrol", "requeue", job_id)
    until(lambda: restarts(job_id) == 1, "the job is requeued")
    state = listed(box)
    assert (state["state"], state["source"]) == ("requeued", "squeue")
    assert "loss is nan at step 3" in state["detail"]


def rank_process(job_id: str, rank: int) -> int:
    """The pid of a rank of a job; every node of the box is this machine."""
    wanted = {f"SLURM_JOB_ID={job_id}".encode(), f"SLURM_PROCID={rank}".encode()}
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted <= set(environ.read_bytes().split(b"\0")):
                return int(environ.parent.name)
        except OSError:
            continue
    raise AssertionError(f"rank {rank} of job {job_id} does not run")


def test_a_submit_from_inside_a_job_is_a_job_of_its_own(box):
    inherited = {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "9", "SLURM_CPU_BIND": "x", "RANK": "7"}
    run = box.train("cluster.nodes=1", **inherited)
    assert box.lockgate("logs", run.name, "-f").returncode == 0
    environment = json.loads((run.folder / "seen-0.json").read_text())["environment"]
    assert (environment["SLURM_NTASKS"], environment["WORLD_SIZE"]) == ("1", "1")
    assert environment["SLURM_JOB_ID"] == job_of(run)


def test_a_partition_that_is_not_there_leaves_nothing_behind(box):
    done = box.lockgate("train", "task=standin", "cluster.partition=nowhere")
    assert done.returncode == 1
    assert done.stderr.startswith("lockgate: sbatch refused the job:")
    assert "Traceback" not in done.stderr
    assert [path.name for path in box.runs.iterdir()] == ["snapshots"]


def test_a_sweep_is_one_array_whose_tasks_are_runs_of_their_own(box):
    words = ["task=standin", "cluster.nodes=1", "cluster.mem_gb=0.6", "cluster.gpus_per_node=0"]
    line = ["train", "-m", "--json", *words, "task.behaviour=wait", "seed=1,2", "sweep=pair"]
    sent = box.lockgate(*line)
    assert sent.returncode == 0, sent.stderr
    runs = [Run(Path(one["folder"])) for one in json.loads(sent.stdout)]
    array = job_of(runs[0]).partition("_")[0]
    assert [job_of(run) for run in runs] == [f"{array}_0", f"{array}_1"]
    first, second = runs
    until(lambda: all((run.folder / "seen-0.json").exists() for run in runs), "both at work")
    # What slurmctld sends before the time limit: the batch script requeues this task alone.
    slurm("scancel", "--signal=USR2", job_of(first))
    until(lambda: restarts(job_of(first)) == 1, "the batch script requeued its task")
    assert restarts(job_of(second)) == 0
    states = {one["run"]: one["state"] for one in json.loads(box.lockgate("ls", "--json").stdout)}
    assert states == {first.name: "requeued", second.name: "running"}
    done = box.lockgate("cancel", second.name, "--json")
    assert json.loads(done.stdout)["state"] == "cancelled", done.stderr
    start_again(job_of(first))
    followed = box.lockgate("logs", first.name, "-f")
    assert followed.returncode == 0, followed.stdout
    assert accounting(first) == ("COMPLETED", "0:0")
    again = box.lockgate(*line)
    assert [one["outcome"] for one in json.loads(again.stdout)] == ["already in", "ended"]
    standings = json.loads(box.lockgate("ls", "--sweep", "pair", "--json").stdout)
    assert standings["best"] == first.name


def listed(box: BoxCheckout) -> dict:
    """The newest run as `lockgate ls` has it."""
    done = box.lockgate("ls", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)[-1]


def requeue_now(run: Run) -> None:
    """As an operator does."""
    job_id = job_of(run)
    slurm("scontrol", "requeue", job_id)
    until(lambda: restarts(job_id) == 1, "the job is requeued")
    start_again(job_id)


def start_again(job_id: str) -> None:
    """Slurm waits two minutes before it starts a requeued job again, these tests three seconds: a
    start in the very second of the requeue is refused by slurmd ("Job credential revoked")."""
    slurm("scontrol", "update", f"JobId={job_id}", "StartTime=now+3")


def restarts(job_id: str) -> int:
    shown = slurm("scontrol", "--oneliner", "show", "job", job_id)
    fields = dict(part.split("=", 1) for part in shown.split() if "=" in part)
    return int(fields["Restarts"]) if fields["JobState"] in ("PENDING", "RUNNING") else 0
