"""A driven sweep on this machine: real processes, bad trials ended early, the best one named."""

from __future__ import annotations

import json

from hpc.cli.main import main
from tests.hpc.jobs.conftest import Checkout

LOOP = """
import json, time
from pathlib import Path


def train(spec, run_dir: Path, stop, watch) -> str:
    lr = spec.config.optim.lr
    if lr > 0.9:
        raise FloatingPointError("loss is nan at step 3")
    for step in range(1, spec.config.steps + 1):
        with (run_dir / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, "loss": abs(lr - 0.2)}) + "\\n")
        # The worst one stays, as long as nothing ends it.
        while step == 3 and lr == 0.8:
            if stop():
                return "stopped"
            time.sleep(0.02)
    return "finished"
"""
LINE = (
    "train", "-m", "task=standin", "cluster=local", "cluster.tasks_per_node=1", "sweep=s",
    "cluster.sweep_parallel=4", "sweeper.stop=median", "sweeper.poll_s=0.3", "steps=4",
    "sweeper.startup_trials=2", "optim.lr=0.1,0.2,0.8,0.95",
)  # fmt: skip


def test_a_grid_that_is_watched_ends_its_worst_trial(checkout: Checkout, monkeypatch, capsys):
    (checkout.root / "hpc" / "train" / "loop.py").write_text(LOOP)
    done = checkout.lockgate(*LINE)
    assert done.returncode == 0, done.stderr
    assert "sweep s: 4 submitted" in done.stderr
    lines = done.stdout.splitlines()
    assert lines[-3] == "sweep s: 2 finished, 1 stopped early, 1 failed"
    assert lines[-2].startswith("best: ") and lines[-2].endswith("lr=0.2  loss 0")

    monkeypatch.setenv("LOCKGATE_SITE", str(checkout.site))
    assert main(["ls", "--sweep", "s", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    trials = {one["values"]["optim.lr"]: one for one in found["trials"]}
    assert found["best"] == trials[0.2]["run"]
    assert [trials[lr]["state"] for lr in (0.1, 0.2, 0.8, 0.95)] == [
        "finished", "finished", "cancelled", "failed",
    ]  # fmt: skip
    bad = trials[0.8]
    reason = "stopped early: best loss 0.6 at step 3, median 0.05 of 2 others"
    assert (bad["stopped_early"], bad["detail"]) == (True, reason)
    assert not trials[0.1]["stopped_early"] and "nan" in trials[0.95]["detail"]
    for verb in ("why", "show"):
        assert main([verb, bad["run"]]) == 0
        assert reason in capsys.readouterr().out
