"""Shares of the processors are real control groups, and nothing of them is left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from scripts.box import supervisor
from scripts.rollout_bench.machines import BenchError
from scripts.rollout_bench.processors import CONTROL, CONTROLLER, processor_shares

pytestmark = pytest.mark.skipif(
    not os.access(CONTROLLER / "cpu.cfs_quota_us", os.R_OK) or os.geteuid() != 0,
    reason="needs root and the cpu controller of cgroup v1",
)


def group_of(pid: int) -> str:
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return next(line.rpartition(":")[2] for line in lines if "cpu" in line.split(":")[1].split(","))


@pytest.fixture
def site(tmp_path):
    hosts = {"us-east-1": None, "us-west-1": None}
    return SimpleNamespace(
        root=tmp_path, hosts=hosts, paths=SimpleNamespace(hosts=tmp_path / "hosts")
    )


@pytest.fixture
def daemons(site):
    """A daemon on each host, with a child that does not name the host."""
    code = "import subprocess; subprocess.run(['sleep', '60'])"
    started = {
        host: subprocess.Popen(
            [sys.executable, "-c", code, str(site.paths.hosts / host / "etc" / "a.conf")],
            env={**os.environ, supervisor.MARK: str(site.root)}, start_new_session=True,
        )
        for host in site.hosts
    }  # fmt: skip
    yield started
    for process in started.values():
        os.killpg(process.pid, 9)
        process.wait()


def test_each_machine_has_its_quota_until_the_end(site, daemons):
    before = group_of(os.getpid())
    with processor_shares(site, 0.25) as shares:
        for host, process in daemons.items():
            group = shares.groups[host]
            assert group_of(process.pid).endswith(f"/{host}")
            assert int((group / "cpu.cfs_quota_us").read_text()) * 4 == int(
                (group / "cpu.cfs_period_us").read_text()
            )
        inside = subprocess.run(
            [*shares.join(CONTROL), "cat", "/proc/self/cgroup"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert f"/{CONTROL}\n" in inside
        assert group_of(os.getpid()) == before, "clients and edges keep the rest"
        parent = next(iter(shares.groups.values())).parent
    assert not parent.exists()
    assert all(process.poll() is None for process in daemons.values())


def test_a_site_that_is_down_is_not_measured(site):
    with pytest.raises(BenchError, match="us-east-1"), processor_shares(site, 0.25):
        raise AssertionError("not reached")
    assert not (CONTROLLER / f"lockgate-bench-{os.getpid()}").exists()
