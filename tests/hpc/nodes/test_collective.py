"""The ranks' meeting before training, by real processes on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc.jobs.rank.rendezvous import PORTS
from hpc.nodes.collective import compare_speeds, other_port

REPO = Path(__file__).parents[3]
# Meets twice on the same ports, as training does after the checks.
RANK = """
import json, sys
from dataclasses import asdict
from hpc.nodes.collective import check_collective
found = [check_collective(float(sys.argv[1]), float(sys.argv[2])) for _ in (1, 2)]
print(json.dumps([asdict(check) for check in found[-1]]))
"""


def start(rank: int, size: int, port: int, speed: float, limit_s: float) -> subprocess.Popen[str]:
    variables = {
        "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PYTHONPATH": str(REPO),
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", RANK, str(speed), str(limit_s)],
        env={**os.environ, **variables}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_two_ranks_meet_and_the_slow_one_is_found(free_port: int) -> None:
    ranks = [start(rank, 2, free_port, speed, 60) for rank, speed in enumerate((100.0, 5.0))]
    found = []
    for one in ranks:
        out, err = one.communicate(timeout=120)
        assert one.returncode == 0, err
        found.append({check["name"]: check for check in json.loads(out)})
    for checks in found:
        assert checks["all-reduce"]["fault"] == ""
        assert checks["all-reduce"]["found"].endswith("MB/s")
    assert found[0]["speed"]["fault"] == ""
    assert "at 5% of the fastest rank's speed (100 GFLOP/s)" in found[1]["speed"]["fault"]


def test_a_rank_that_does_not_come_is_an_error_in_time(free_port: int) -> None:
    out, err = start(0, 2, free_port, 1.0, 2).communicate(timeout=60)
    assert out == ""
    assert "Error" in err


@given(st.sampled_from(PORTS))
def test_the_checks_port_is_another_jobs_neither_before_nor_after(port: int) -> None:
    other = other_port(port)
    assert other in PORTS
    assert abs(other - port) == len(PORTS) // 2


@pytest.mark.parametrize(
    ("own", "of_all", "fit"),
    [(50.0, [50.0, 60.0], True), (7.0, [7.0, 60.0], True), (5.0, [5.0, 60.0], False),
     (1.0, [1.0], True), (0.0, [0.0, 0.0], True)],
)  # fmt: skip
def test_a_rank_that_would_hold_up_the_others(own: float, of_all: list[float], fit: bool) -> None:
    assert (compare_speeds(own, of_all).fault == "") is fit
