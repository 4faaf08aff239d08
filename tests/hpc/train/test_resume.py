"""Kill it, stop it, damage its newest checkpoint: the run ends with the same numbers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hpc.train import manifest, metrics_log

pytestmark = pytest.mark.slow

LAST = "checkpoints/00000008/model.safetensors"


def losses(run: Path) -> list[tuple[int, float]]:
    return [
        (line["step"], line["loss"])
        for line in metrics_log.read_metrics(run / "metrics.jsonl")
        if "loss" in line
    ]


def validation(run: Path) -> list[dict[str, float]]:
    return [
        {key: value for key, value in line.items() if key != "time"}
        for line in metrics_log.read_metrics(run / "metrics.jsonl")
        if "validation_bits_per_byte" in line
    ]


def test_interrupted_in_every_way_a_run_has_the_same_losses_and_weights(
    new_run: Callable[..., Path], attempt: Callable
) -> None:
    whole = new_run("whole")
    ended = attempt(whole)
    assert ended.codes == [0, 0], ended.log
    assert "outcome: finished" in ended.log
    assert "MLflow at http://127.0.0.1:9 does not take metrics" in ended.log  # once, at the start
    assert ended.log.count("does not take metrics") == 2  # and when it was tried at the end
    assert [step for step, _ in losses(whole)] == list(range(1, 9))
    assert (whole / "candidate" / "exported.txt").is_file()
    assert not (whole / "metrics_target.json").exists()

    broken = new_run("broken")
    ended = attempt(broken, second=("stop", "3"))  # only one of the ranks is told
    assert ended.codes == [0, 0], ended.log
    assert "outcome: stopped" in ended.log
    assert manifest.checkpoint_fault(broken / "checkpoints" / "00000003") is None
    assert losses(broken) == losses(whole)[:3]

    ended = attempt(broken, ("kill", "3"), ("kill", "3"))  # in step 6, after the save of step 4
    assert ended.codes == [-9, -9], ended.log
    assert "resumed after step 3" in ended.log
    newest = (broken / "checkpoints" / "latest").read_text().strip()
    assert newest == "00000004"

    # What a kill in the middle of a save leaves behind.
    shutil.copytree(broken / "checkpoints" / newest, broken / "checkpoints" / ".staging-5")
    damaged = broken / "checkpoints" / newest / "random-00001.json"
    damaged.write_text(damaged.read_text().replace("1", "2", 1))
    ended = attempt(broken, ("stop", "1", "evaluation"))  # of step 4, and only rank 0 hears it
    assert "checkpoint 00000004 is not used: random-00001.json is not what was" in ended.log
    assert "resumed after step 3" in ended.log
    for first, step in (
        ((), "4"),
        (("stop", "4", "checkpoint"), "8"),
        (("stop", "1", "export"), "8"),
    ):
        ended = attempt(broken, first) if first else ended
        assert ended.codes == [0, 0], ended.log
        assert "outcome: stopped" in ended.log
        assert (broken / "checkpoints" / "latest").read_text().strip() == f"0000000{step}"
        assert not (broken / "candidate").exists()
    ended = attempt(broken)
    assert ended.codes == [0, 0], ended.log
    assert validation(broken) == validation(whole)
    assert losses(broken) == losses(whole)
    assert (broken / LAST).read_bytes() == (whole / LAST).read_bytes()
    assert sorted(item.name for item in (broken / "checkpoints").iterdir()) == [
        "00000004",
        "00000008",
        "latest",
    ]


@pytest.mark.parametrize(
    ("zero_stage", "words"),
    [
        (0, "lockgate: the loss became nan in step"),
        (1, "lockgate: the gradients are no numbers in step"),  # DeepSpeed leaves these updates out
    ],
)
def test_a_model_that_is_lost_ends_the_run_with_a_sentence(
    new_run: Callable[..., Path], attempt: Callable, zero_stage: int, words: str
) -> None:
    wild = ["optim=adamw", "optim.lr=1e30", "precision=fp32", f"zero_stage={zero_stage}"]
    run = new_run("wild", *wild)
    ended = attempt(run)
    assert ended.codes == [3, 3], ended.log
    assert words in ended.log
    assert "lower optim.lr" in ended.log
    assert not (run / "candidate").exists()


def test_other_ranks_than_before_are_refused_where_the_samples_would_be_others(
    new_run: Callable[..., Path], attempt: Callable
) -> None:
    run = new_run("grown")
    assert attempt(run, ("stop", "1")).codes == [0, 0]
    newest = run / "checkpoints" / "00000001"
    content = json.loads((newest / manifest.FILE).read_text())
    content["layout"]["world_size"] = content["world_size"] = 3
    (newest / manifest.FILE).write_text(json.dumps(content))
    ended = attempt(run)
    assert ended.codes == [3, 3], ended.log
    assert "2 ranks cannot share the 3 micro-batches of a step" in ended.log
    # One that does not record its layout goes on with its own ranks only.
    (newest / manifest.FILE).write_text(json.dumps({**content, "layout": None}))
    ended = attempt(run)
    assert ended.codes == [3, 3], ended.log
    assert "was written by 3 ranks and this job has 2" in ended.log
