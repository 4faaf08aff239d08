"""The box's whole life, on a second box beside the first: from nothing, through kills, to nothing.

It has ports and a folder of its own, so the box that the other site tests use is not disturbed.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from conf import compose
from conf.site_schema import EDGE_PORTS, Site, site_config
from scripts.box import monitoring, processes, supervisor
from scripts.box.down import down
from scripts.box.program import Refusal
from scripts.box.status import status
from scripts.box.up import up
from scripts.box.waiting import wait_until

pytestmark = [pytest.mark.site, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

SHIFT = 10_000


@pytest.fixture(scope="module")
def second() -> Iterator[Site]:
    """A second site: every port and address moved by config, nothing else different."""
    folder = tempfile.mkdtemp(prefix="lockgate-", dir="/tmp")
    Path(folder).chmod(0o755)
    first = site_config(compose("site"))
    overrides = [f"site.root={folder}/site", "site.slurm.kill_wait_s=3"]
    overrides += [f"site.ports.{key}={port + SHIFT}" for key, port in vars(first.ports).items()]
    for k, host in enumerate(first.hosts):
        overrides.append(f"site.hosts.{host}.address=127.0.1.{11 + k}")
    for region, edge in first.edges.items():
        for key in EDGE_PORTS:
            overrides.append(f"site.edges.{region}.{key}={getattr(edge, key) + SHIFT}")
    with pytest.MonkeyPatch.context() as patch:
        # The exporters read the port from the checkout's config, where it is the first box's.
        patch.setattr(monitoring, "exporters", lambda *_: [])
        site = site_config(compose("site", overrides))
        yield site
        down(site, quiet())
    shutil.rmtree(folder)


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def healthy(site: Site) -> bool:
    return all(daemon.healthy for daemon in status(site))


def pids(site: Site) -> dict[str, int]:
    return {daemon.program.name: daemon.pid for daemon in status(site)}


def submit(site: Site, script: str) -> str:
    """A job on both nodes; returns its number."""
    done = subprocess.run(
        ["runuser", "-u", site.users.train, "--", "env", "-i", "PATH=/usr/bin:/bin",
         f"SLURM_CONF={site.paths.slurm_conf}", "sbatch", "--parsable", "--nodes=2",
         f"--chdir={site.root}/home/train", "--output=job-%j.out", "--wrap", script],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def job_output(site: Site, job: str) -> str:
    path = site.root / "home" / "train" / f"job-{job}.out"
    return path.read_text() if path.exists() else ""


def test_a_taken_port_is_refused_before_anything_runs(second: Site) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", second.ports.mlflow))
        holder.listen()
        with pytest.raises(Refusal, match=rf"site\.ports\.mlflow.*pid {os.getpid()} "):
            up(second, quiet())
    assert processes.of_site(second) == []


def test_it_comes_up_from_nothing_and_stays_as_it_is(second: Site) -> None:
    up(second, quiet())
    assert healthy(second)
    before = pids(second)
    up(second, quiet())
    assert pids(second) == before


@pytest.mark.parametrize("name", ["munged", "slurmctld", "slurmd-n2", "haproxy-us-west",
                                  "supervisor-use1-a", "triton-use1-b"])  # fmt: skip
def test_a_killed_daemon_comes_back_by_itself(second: Site, name: str) -> None:
    before = pids(second)[name]
    os.kill(before, signal.SIGKILL)
    assert wait_until(lambda: pids(second)[name] not in (0, before) and healthy(second), 60)


def test_a_changed_config_restarts_what_reads_it_and_nothing_else(second: Site) -> None:
    before = pids(second)
    other = replace(second, slurm=replace(second.slurm, kill_wait_s=4))
    up(other, quiet())
    after = pids(second)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"slurmctld", "slurmdbd", "slurmd-n1", "slurmd-n2"}
    up(second, quiet())  # and back


def test_up_mends_a_box_whose_supervisord_was_killed_and_jobs_live_on(second: Site) -> None:
    job = submit(second, "srun sleep 15; echo survived")
    assert wait_until(lambda: processes.jobs_of(second), 30)
    os.kill(int(supervisor.pid_file(second).read_text()), signal.SIGKILL)
    up(second, quiet())
    assert healthy(second)
    assert len({p.pid for p in processes.of_site(second) if p.name() == "mariadbd"}) == 1
    assert wait_until(lambda: "survived" in job_output(second, job), 60)


def test_down_ends_everything_a_job_that_will_not_stop_included(second: Site) -> None:
    up(second, quiet())
    submit(second, "srun bash -c 'trap : TERM; echo here; while true; do sleep 600; done'")
    assert wait_until(lambda: processes.jobs_of(second), 30)
    running = processes.of_site(second)
    down(second, quiet())
    assert processes.of_site(second) == []
    assert [p.pid for p in running if psutil.pid_exists(p.pid)] == []
    assert not list(Path("/dev/shm").glob("lockgate_127.0.1.1?_*"))
    down(second, quiet())


def test_up_after_down_has_what_it_had(second: Site) -> None:
    key = second.paths.release_key.read_text()
    up(second, quiet())
    assert healthy(second)
    assert second.paths.release_key.read_text() == key
    listed = subprocess.run(
        ["sacct", "-nXP", "--allusers", "-o", "state"], capture_output=True, text=True, check=True,
        env={**os.environ, "SLURM_CONF": str(second.paths.slurm_conf)},
    ).stdout.split()  # fmt: skip
    assert "COMPLETED" in listed
