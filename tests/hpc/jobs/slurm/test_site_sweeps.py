"""A search on the box's real Slurm: an array, an early stop, and a driver that was killed."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys

import pytest

from hpc.jobs.run.folder import Run
from tests.hpc.jobs.slurm.test_site_jobs import SITE, accounting, box, until  # noqa: F401
from tests.hpc.jobs.sweep.test_local_driver import LOOP

pytestmark = [pytest.mark.site, pytest.mark.timeout(300)]


def test_a_search_goes_on_after_its_driver_was_killed_and_ends_the_worst(box):  # noqa: F811
    (box.root / "hpc" / "train" / "loop.py").write_text(LOOP)
    line = [
        "train", "-m", "task=standin", "cluster.nodes=1", "cluster.tasks_per_node=1",
        "cluster.mem_gb=0.6", "cluster.gpus_per_node=0", "cluster.preflight_s=0", "sweep=s",
        "sweeper=optuna", "sweeper.trials=3", "cluster.sweep_parallel=3", "steps=4",
        "sweeper.stop=median", "sweeper.startup_trials=2", "sweeper.poll_s=0.5",
        "optim.lr=0.1,0.2,0.8", *box.overrides,
    ]  # fmt: skip
    user = pwd.getpwnam(str(SITE.users.train))
    driver = subprocess.Popen(
        [sys.executable, "-m", "hpc.cli.main", *line], cwd=box.root, text=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(box.root), "HOME": str(box.home),
             "LOCKGATE_SITE": str(SITE.root)},
        user=user.pw_uid, group=user.pw_gid, extra_groups=[], umask=0o022,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    until(lambda: len(list(box.runs.glob("*/job.json"))) == 3, "the first three are in")
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    again = box.lockgate(*line[: -len(box.overrides)])
    assert again.returncode == 0, again.stdout + again.stderr
    assert len(list(box.runs.glob("*/job.json"))) == 3  # nothing went out twice
    found = json.loads(box.lockgate("ls", "--sweep", "s", "--json").stdout)
    trials = {one["values"]["optim.lr"]: one for one in found["trials"]}
    assert found["best"] == trials[0.2]["run"]
    bad = trials[0.8]
    reason = "stopped early: best loss 0.6 at step 3, median 0.05 of 2 others"
    assert (bad["state"], bad["detail"]) == ("cancelled", reason)
    assert accounting(Run(box.runs / bad["run"]))[0].startswith("CANCELLED")
