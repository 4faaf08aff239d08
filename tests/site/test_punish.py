"""The punisher's short form on the box: real training on two nodes, hurt, and equal to the bit."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scripts.train_punish import verdict

pytestmark = [pytest.mark.site, pytest.mark.slow, pytest.mark.timeout(900)]
REPO = Path(__file__).resolve().parents[2]


def punish(*words: str) -> list[dict[str, Any]]:
    """The goals of `scripts/punish train`, all of which hold; else its words are the failure's."""
    done = subprocess.run(
        [str(REPO / "scripts" / "punish"), "train", "--json", *words], cwd=REPO, text=True,
        capture_output=True, stdin=subprocess.DEVNULL, timeout=850,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    goals: list[dict[str, Any]] = json.loads(done.stdout)
    return goals


@pytest.mark.full
def test_a_run_is_bit_equal_although_a_rank_slurmctld_and_mlflow_were_killed(box) -> None:
    # slurmctld first: the batch script of the killed rank waits for it with its requeue.
    goals = punish("--mtbf", "2s", "--for", "7s", "--seed", "24", "--steps", "160",
                   "--kinds", "rank,slurmctld,mlflow")  # fmt: skip
    found = {goal["goal"]: goal["value"] for goal in goals}
    assert found[verdict.KINDS_HIT] == 3
    assert found[verdict.WEIGHTS_DIFFER] == found[verdict.CURVE_DIFFERS] == 0
    assert all(daemon["healthy"] for daemon in box.status()["daemons"])


@pytest.mark.full
def test_five_minutes_of_every_fault_change_no_bit(box) -> None:
    assert len(punish("--mtbf", "20s", "--for", "5m")) == 6
