"""A run in a container on the box's real Slurm: srun --container, started by runc."""

from __future__ import annotations

import json
import pwd
import shutil
import sys
from pathlib import Path

import pytest

from tests.hpc.jobs.containers import bundle_config, make_bundle
from tests.hpc.jobs.slurm.test_site_jobs import (  # noqa: F401  the fixture
    SITE,
    BoxCheckout,
    box,
    slurm,
    until,
)

pytestmark = [pytest.mark.site, pytest.mark.timeout(300)]


@pytest.fixture
def bundle(box: BoxCheckout) -> Path:  # noqa: F811
    """A bundle of the box's own programs, for the training user."""
    user = pwd.getpwnam(str(SITE.users.train))
    environment = sorted({sys.prefix, str(Path(sys.prefix).resolve())})
    folders = [str(SITE.root), str(box.home), *environment]
    made = make_bundle(box.home / "bundle", bundle_config(folders, user.pw_uid, user.pw_gid))
    loop = box.root / "hpc" / "train" / "loop.py"
    inside = 'Path("/this-is-the-image").exists(), "host": os.uname().nodename'
    loop.write_text(loop.read_text().replace('"word": WORD', f'"inside": {inside}'))
    return made


def test_a_rank_works_in_the_container_hears_a_signal_and_comes_back(
    box: BoxCheckout,  # noqa: F811
    bundle: Path,
) -> None:
    run = box.train(f"cluster.container={bundle}", "task.behaviour=wait", "cluster.nodes=1")
    seen = run.folder / "seen-0.json"
    until(seen.exists, "the rank at work")
    found = json.loads(seen.read_text())
    assert (found["inside"], found["host"]) == (True, "in-a-container")
    job = json.loads(run.job.read_text())["job_id"]
    slurm("scancel", "--signal=USR2", job)
    followed = box.lockgate("logs", run.name, "-f")
    assert followed.returncode == 0, followed.stdout
    assert "attempt 1 saved and stopped (SIGUSR2)" in followed.stdout
    assert "attempt 2 finished" in followed.stdout


def test_this_slurm_cannot_tell_two_ranks_in_containers_apart(
    box: BoxCheckout,  # noqa: F811
    bundle: Path,
) -> None:
    done = box.lockgate("train", "task=standin", f"cluster.container={bundle}", "cluster.nodes=2")
    assert done.returncode == 2
    assert "slurm-wlm 22.05.8 gives all ranks of a container the variables of one" in done.stderr


def test_a_changed_image_is_refused_when_the_run_comes_back(
    box: BoxCheckout,  # noqa: F811
    bundle: Path,
) -> None:
    run = box.train(f"cluster.container={bundle}", "cluster.nodes=1", "begin=now+1hour")
    shutil.copy(__file__, bundle / "rootfs")
    slurm("scontrol", "update", f"JobId={json.loads(run.job.read_text())['job_id']}",
          "StartTime=now")  # fmt: skip
    followed = box.lockgate("logs", run.name, "-f")
    assert followed.returncode == 1
    assert f"the container image {bundle} was changed" in followed.stdout
    assert "was changed" in box.lockgate("why", run.name).stdout
