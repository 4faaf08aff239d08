"""Runs of the punisher on the site, sent by `lockgate train` as the training user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from conf.site_schema import Site
from hpc.jobs.regular_file import open_regular_file
from hpc.jobs.run.files import JobFile, StatusFile, read_run_file
from hpc.jobs.run.folder import Run
from hpc.jobs.run.metric_lines import metrics_object
from scripts.box import slurm, supervisor
from scripts.box.identity import REPO
from scripts.train_punish.failure import PunisherFailed, PunisherRefused
from scripts.train_punish.trace import Look

PROJECT = "punished"
"""Name of the project that is made where no task is named, and of its task."""
CHECKPOINT_INTERVAL = 25
SETTINGS = (
    "log_interval=1", "eval_interval=200", f"checkpoint_interval={CHECKPOINT_INTERVAL}",
    "micro_batch_size=16",
)  # fmt: skip
HELD = "+cluster.additional_parameters.hold=true"
COMMAND_LIMIT_S = 300
TAIL_BYTES = 1 << 13
ACTIVE = ("PENDING", "RUNNING", "COMPLETING", "SUSPENDED", "CONFIGURING", "REQUEUE_HOLD")


def check_site(site: Site) -> None:
    """Raise `PunisherRefused` where the site is not up, or this is not root."""
    if os.geteuid() != 0:
        raise PunisherRefused("the site's daemons are killed by root only: use sudo")
    found = supervisor.processes(supervisor.socket(site))
    needed = ["slurmctld", "mlflow", *(f"slurmd-{node}" for node in slurm.fixed_nodes(site))]
    down = [name for name in needed if found.get(name, {}).get("statename") != "RUNNING"]
    if down:
        raise PunisherRefused(f"the site is not up ({', '.join(down)}): type scripts/site up")


def prepared_task(site: Site, task: str) -> str:
    """`task`, or that of a small project of the training user's, made and prepared here."""
    if task:
        return task
    folder = project_folder(site)
    if not folder.exists():
        _as_train(site, False, "-m", "hpc.cli.main", "new", str(folder), "--kind", "tabular")
    _as_train(site, True, "-m", "hpc.cli.main", "data", "prepare", f"data={PROJECT}")
    return PROJECT


def project_folder(site: Site) -> Path:
    """The folder of the small project."""
    return site.root / "home" / "train" / PROJECT


def submit(site: Site, task: str, settings: Sequence[str], held: bool = False) -> Run:
    """Submit one run; a `held` one waits for `release`."""
    words = ["train", f"task={task}", *SETTINGS, *settings, *([HELD] if held else []), "--json"]
    answer = _as_train(site, task == PROJECT, "-m", "hpc.cli.main", *words)
    return Run(Path(json.loads(answer)["folder"]))


def release(site: Site, run: Run) -> None:
    """Let a held job start."""
    _slurm(site, "scontrol", "release", job_id(run))


def cancel_active(site: Site, run: Run) -> None:
    """Cancel a run by `lockgate cancel` where its job still waits or runs.

    One that finished is left alone: its job is about to end.
    """
    if look_at(run)[1] != "finished" and job_state(site, run) in ACTIVE:
        with suppress(PunisherFailed):  # it has just ended
            _as_train(site, False, "-m", "hpc.cli.main", "cancel", run.name)


def job_id(run: Run) -> str:
    """Slurm's id of the run's job. Raises `PunisherFailed`."""
    job = read_run_file(JobFile, run.job).value
    if job is None:
        raise PunisherFailed(f"{run.folder} has no job")
    return job.job_id


def job_state(site: Site, run: Run) -> str:
    """Slurm's word for the job, such as PENDING; empty where slurmctld does not answer."""
    try:
        return _slurm(site, "squeue", "--noheader", "--format=%T", f"--jobs={job_id(run)}",
                      "--states=all").strip()  # fmt: skip
    except PunisherFailed:
        return ""


def look_at(run: Run) -> tuple[Look, str]:
    """The run's attempt and newest step now, and the state in its folder."""
    status = read_run_file(StatusFile, run.status).value or StatusFile("running", 0)
    step, step_at = _last_step(run.metrics)
    return Look(time.time(), status.attempt, status.began_after, step, step_at), status.state


def _last_step(path: Path) -> tuple[int, float]:
    try:
        with open_regular_file(path) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            lines = file.read().splitlines(keepends=True)
    except OSError:
        return 0, 0.0
    for line in reversed(lines):
        content = metrics_object(line) if line.endswith(b"\n") else None
        if content and "loss" in content:
            return int(content["step"]), float(content["time"])
    return 0, 0.0


def _slurm(site: Site, *argv: str) -> str:
    environment = {**os.environ, **slurm.client_env(site)}
    return _output(argv, environment)


def _as_train(site: Site, in_project: bool, *words: str) -> str:
    """The output of this checkout's Python as the training user. Raises `PunisherFailed`."""
    environment = {**os.environ, "LOCKGATE_SITE": str(site.root)}
    environment.pop("LOCKGATE_PROJECT", None)
    if in_project:
        environment["LOCKGATE_PROJECT"] = str(project_folder(site))
    return _output([str(REPO / "scripts/site"), "as", "train", sys.executable, *words], environment)


def _output(argv: Sequence[str], environment: dict[str, str]) -> str:
    try:
        done = subprocess.run(
            argv, cwd=REPO, env=environment, capture_output=True, text=True,
            stdin=subprocess.DEVNULL, timeout=COMMAND_LIMIT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise PunisherFailed(f"{' '.join(argv[:6])} took {COMMAND_LIMIT_S} s") from None
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise PunisherFailed(f"{' '.join(argv[:8])}: {lines[-1] if lines else done.returncode}")
    return done.stdout
