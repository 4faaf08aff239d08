"""A checkout with a stand-in task, and a site beside it, for runs on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpc.jobs.local.process import is_running
from hpc.jobs.run.folder import Run
from tests.hpc.jobs.standin import make_checkout, publish_toy


@dataclass(frozen=True)
class Checkout:
    """A checkout in a temporary folder, and a site beside it."""

    root: Path
    site: Path

    @property
    def runs(self) -> Path:
        return self.site / "runs"

    def lockgate(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the command line from this checkout, as a person would."""
        environment = os.environ | {
            "PYTHONPATH": str(self.root),
            "LOCKGATE_SITE": str(self.site),
            **variables,
        }
        return subprocess.run(
            [sys.executable, "-m", "hpc.cli.main", *words],
            cwd=self.root, env=environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    def train(self, *overrides: str, **variables: str) -> Run:
        """Submit a stand-in run to the local executor."""
        done = self.lockgate(
            "train", "task=standin", "cluster=local", "--json", *overrides, **variables
        )
        assert done.returncode == 0, done.stderr
        return Run(Path(json.loads(done.stdout)["folder"]))

    def wait(self, run: Run) -> subprocess.CompletedProcess[str]:
        """Follow a run's logs to its end."""
        return self.lockgate("logs", run.name, "-f")


@pytest.fixture()
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    made = Checkout(make_checkout(tmp_path / "checkout"), tmp_path / "site")
    publish_toy(made.site)
    yield made
    _end_all(made)


def _end_all(made: Checkout) -> None:
    """No process outlives its test; a run's processes are one process group.

    A run that ended is left alone: its number may be another group's by now.
    """
    for marker in made.runs.glob("*/job.json"):
        job = json.loads(marker.read_text())
        if job["kind"] == "local" and is_running(int(job["job_id"]), job["process_started"]):
            try:
                os.killpg(int(job["job_id"]), signal.SIGKILL)
            except ProcessLookupError:
                continue
