"""Real training, killed in the middle by the launcher's own means: the curve is bit-equal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpc.jobs.local.process import rank_processes
from hpc.jobs.run.files import AttemptEndFile, read_run_file, read_status
from hpc.jobs.run.folder import Run
from hpc.jobs.run.metrics import last_metrics
from tests.hpc.train.conftest import REPO, TINY
from tests.hpc.train.test_resume import losses

pytestmark = [pytest.mark.slow, pytest.mark.full, pytest.mark.timeout(900)]
LONG = ["steps=240", "checkpoint_interval=40", "eval_interval=0", "task.dataset=toytext"]


class Trainer:
    """`lockgate` on this checkout, with a site of its own."""

    def __init__(self, site: Path, dataset: Path) -> None:
        self.environment = {**os.environ, "PYTHONPATH": str(REPO), "LOCKGATE_SITE": str(site)}
        published = site / "data" / "toytext"
        published.mkdir(parents=True)
        (published / "current").symlink_to(dataset)

    def lockgate(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "hpc.cli.main", *words], cwd=REPO, env=self.environment,
            capture_output=True, text=True, timeout=600,
        )  # fmt: skip

    def train(self, *overrides: str) -> Run:
        done = self.lockgate("train", *TINY, *LONG, "cluster=local", "--json", *overrides)
        assert done.returncode == 0, done.stderr
        return Run(Path(json.loads(done.stdout)["folder"]))

    def wait(self, run: Run) -> None:
        """To the end: the toy dataset has no tokenizer, so the export fails by an own error."""
        done = self.lockgate("logs", run.name, "-f")
        assert "tokenizer.json' (rank 0)" in done.stdout.splitlines()[-1]


def test_a_rank_killed_at_a_step_costs_nothing_of_the_curve(tmp_path, text_dataset) -> None:
    trainer = Trainer(tmp_path, text_dataset)
    killed = trainer.train()
    while last_metrics(killed.metrics).get("step", 0) < 60:
        time.sleep(0.02)
    controller = int(read_status(killed).value.job_id)
    os.kill(rank_processes(controller)[1], signal.SIGKILL)
    trainer.wait(killed)
    end = read_run_file(AttemptEndFile, killed.attempt_end(1)).value
    assert (end.outcome, end.kind, end.rank) == ("requeued", "killed", 1)
    assert end.checkpoint_step >= 40
    assert read_status(killed).value.attempt == 2  # and no third one after the own error
    log = (killed.logs / "2-0.log").read_text()
    assert f"resumed after step {end.checkpoint_step}" in log
    whole = trainer.train()
    trainer.wait(whole)
    assert read_status(whole).value.attempt == 1
    assert losses(killed.folder) == losses(whole.folder)
    assert [step for step, _ in losses(killed.folder)] == list(range(1, 241))
