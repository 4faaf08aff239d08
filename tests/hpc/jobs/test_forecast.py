"""A dry run's account: hours, the start that Slurm expects, and what is new since the last run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conf import options
from hpc.cli.main import main
from hpc.jobs.errors import SchedulerUnavailable
from hpc.jobs.run.folder import Run
from hpc.jobs.slurm import backend as slurm_backend
from hpc.jobs.slurm.backend import SlurmBackend
from tests.hpc.jobs.spec.test_job_spec import spec_of
from tests.hpc.jobs.standin import publish_toy

TASK = options("task")[0]
LINE = ["train", f"task={TASK}", "task.dataset=toy", "--dry-run"]
# sbatch prints it as an error, with exit code 0.
WORDS = (
    "sbatch: Job 7 to start at 2026-11-27T14:41:00 using 2 processors on nodes n[1-2] in "
    "partition gpu\n"
)


@pytest.fixture()
def site(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("LOCKGATE_SITE", str(tmp_path))
    publish_toy(tmp_path)
    return tmp_path


def dry_run(capsys, *words: str) -> dict:
    assert main([*LINE, "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_hours_are_those_of_the_whole_time_limit(site, capsys):
    size = ["cluster.nodes=2", "cluster.gpus_per_node=4", "cluster.timeout_min=90"]
    shown = dry_run(capsys, *size, "cluster.cpus_per_task=3", "cluster.tasks_per_node=4")
    assert (shown["gpu_hours"], shown["cpu_hours"]) == (12, 36)
    assert main([*LINE, "cluster=local"]) == 0
    text = capsys.readouterr().out
    assert "# asks for at most 2 CPU-hours\n" in text
    assert "# the first run of this task here\n" in text and "expects" not in text


def test_the_difference_to_the_last_run_of_the_task(site, capsys):
    shown = dry_run(capsys, "cluster=local")
    runs = site / "runs"
    for name, seed in (("000001", 5), ("000002", 1)):
        run = Run(runs / f"{TASK}-20260101-{name}-aaaaaa")
        run.folder.mkdir(parents=True)
        config = {**shown["spec"]["config"], "seed": seed, "gone": 1}
        spec_of(config).write(run.spec_path)
    other = Run(runs / f"{TASK}-x-20260101-000009-aaaaaa")  # of another task
    other.folder.mkdir()
    spec_of({}).write(other.spec_path)
    broken = Run(runs / f"{TASK}-20260101-000003-aaaaaa")
    broken.folder.mkdir()
    broken.spec_path.write_text("no spec")
    shown = dry_run(capsys, "cluster=local", "seed=9")
    assert shown["last_run"] == f"{TASK}-20260101-000002-aaaaaa"
    changes = {one["key"]: (one["before"], one["now"]) for one in shown["changes"]}
    assert changes["seed"] == (1, 9) and changes["gone"] == (1, None)
    assert set(changes) <= {"seed", "gone", "source", "dataset", "packages", "project"}
    assert main([*LINE, "cluster=local", "seed=9"]) == 0
    text = capsys.readouterr().out
    assert f"# changed since {TASK}-20260101-000002-aaaaaa:\n" in text
    assert "#   seed: 1 -> 9\n" in text and "#   gone: 1 -> -\n" in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (WORDS, "2026-11-27T14:41:00"),
        ("", None),
        ("sbatch: Job 7 to start at Unknown using 2 processors\n", None),
    ],
)
def test_the_start_that_slurm_expects(monkeypatch, words, expected):
    monkeypatch.setattr(slurm_backend, "controller_is_up", lambda _: True)
    monkeypatch.setattr(slurm_backend, "sbatch_test", lambda script, _: words)
    assert SlurmBackend().expected_start("#!/bin/sh\n", {}) == expected


def test_a_slurm_that_does_not_answer_expects_nothing(monkeypatch):
    def away(*_: object) -> str:
        raise SchedulerUnavailable("allocation failure")

    monkeypatch.setattr(slurm_backend, "controller_is_up", lambda _: True)
    monkeypatch.setattr(slurm_backend, "sbatch_test", away)
    assert SlurmBackend().expected_start("", {}) is None
