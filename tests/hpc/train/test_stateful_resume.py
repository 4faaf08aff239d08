"""Two real ranks with a store, whose loader has a state: lost here, the run goes on from there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hpc.jobs.run.stored import confirmed_steps
from hpc.train import manifest, metrics_log

pytestmark = pytest.mark.full  # three attempts of two ranks: a minute on two cores

LAST = "checkpoints/00000008/model.safetensors"


def losses(run: Path) -> list[tuple[int, float]]:
    lines = metrics_log.read_metrics(run / "metrics.jsonl")
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


def test_from_the_store_with_its_loaders_state_a_run_ends_with_the_same_bits(
    new_run: Callable[..., Path], attempt: Callable, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    stored = [f"checkpoint_store={store}", "eval_interval=0", "keep_checkpoints=1"]
    whole = new_run("whole", *stored)
    ended = attempt(whole, program="stateful_rank.py")
    assert ended.codes == [0, 0], ended.log
    assert confirmed_steps(whole / "checkpoints") == (8,)
    assert manifest.checkpoint_fault(store / "whole" / "00000008") is None
    assert [one.name for one in (store / "whole").iterdir()] == ["00000008"]

    broken = new_run("broken", *stored, "checkpoint_async=true")
    ended = attempt(broken, second=("stop", "5"), program="stateful_rank.py")
    assert ended.codes == [0, 0], ended.log
    assert (store / "broken" / "00000005" / "loader-00001.pt").is_file()
    shutil.rmtree(broken / "checkpoints")
    ended = attempt(broken, ranks=1, program="stateful_rank.py")
    assert ended.codes == [3], ended.log
    assert "the state of the task's data loader for each of 2 ranks" in ended.log
    shutil.rmtree(broken / "checkpoints")
    ended = attempt(broken, program="stateful_rank.py")
    assert ended.codes == [0, 0], ended.log
    assert f"checkpoint 00000005 was taken from {store}" in ended.log
    assert losses(broken) == losses(whole)
    assert (broken / LAST).read_bytes() == (whole / LAST).read_bytes()
