"""Other ranks and other ZeRO stages than before, on real ranks: the curve goes on as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hpc.train import manifest, metrics_log
from hpc.train.universal import universal_folder

pytestmark = pytest.mark.slow

EXACT = [
    "precision=fp32",
    "optim=adamw",
    "steps=6",
    "keep_every=2",
    "checkpoint_interval=2",
    "eval_interval=0",
]
ASYNC = "checkpoint_async=true"
# Two ranks with gloo add in another order than one: some roundoffs of fp32, 6e-8, in each sum.
FIRST = Path("checkpoints", "00000002")
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def losses(run: Path) -> list[float]:
    return [
        line["loss"] for line in metrics_log.read_metrics(run / "metrics.jsonl") if "loss" in line
    ]


def assert_same_content(one: Path, other: Path) -> None:
    """Two checkpoints hold the same numbers, bit for bit, in the same files."""
    names = {path.relative_to(one) for path in one.rglob("*") if path.is_file()}
    assert names == {path.relative_to(other) for path in other.rglob("*") if path.is_file()}
    for name in names:
        if name.suffix == ".pt":
            assert_same_state(load(one / name), load(other / name), str(name))
        elif name.name != manifest.FILE:
            assert (one / name).read_bytes() == (other / name).read_bytes(), name


def load(path: Path) -> object:
    return torch.load(path, map_location="cpu", weights_only=False)


def assert_same_state(one: object, other: object, where: str) -> None:
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and one.equal(other), where
    elif isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_same_state(one[key], other[key], f"{where} {key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for left, right in zip(one, other, strict=True):
            assert_same_state(left, right, where)
    elif type(one).__eq__ is not object.__eq__:
        assert one == other, where


def change_spec(run: Path, changed: Path) -> None:
    """As `lockgate resume` with another setting leaves it."""
    (run / "spec.yaml").unlink()
    (changed / "spec.yaml").rename(run / "spec.yaml")


def elastic(
    new_run: Callable[..., Path], attempt: Callable, stages: tuple[int, int, int], *words: str
) -> None:
    """2 ranks, then 1, then 2 again, each with its ZeRO stage, against 2 ranks throughout."""
    first, second, third = stages
    whole = new_run("whole", *EXACT, *words, f"zero_stage={first}")
    ended = attempt(whole)
    assert ended.codes == [0, 0], ended.log
    run = new_run("elastic", *EXACT, *words, ASYNC, f"zero_stage={first}")
    ended = attempt(run, ("stop", "2"))
    assert ended.codes == [0, 0], ended.log
    assert_same_content(run / FIRST, whole / FIRST)  # written beside the steps, and in a step

    change_spec(run, new_run("second", *EXACT, *words, f"zero_stage={second}"))
    ended = attempt(run, ("stop", "2"), ranks=1)
    assert ended.codes == [0], ended.log
    assert "resumed after step 2" in ended.log
    assert "checkpoint 00000002 goes on with 2 -> 1 ranks" in ended.log
    assert "gradient_accumulation_steps=2: 4 rows or sequences a step" in ended.log
    made = universal_folder(run / FIRST)
    if first:
        assert manifest.checkpoint_fault(made) is None
        assert manifest.read_manifest(made).made_from

    change_spec(run, new_run("third", *EXACT, *words, ASYNC, f"zero_stage={third}"))
    ended = attempt(run)
    assert ended.codes == [0, 0], ended.log
    assert "checkpoint 00000004 goes on with 1 -> 2 ranks" in ended.log
    assert "gradient_accumulation_steps=1: 4 rows or sequences a step" in ended.log
    torch.testing.assert_close(losses(run), losses(whole), **CLOSE)


def test_from_two_ranks_to_one_and_back_through_all_stages(
    new_run: Callable[..., Path], attempt: Callable
) -> None:
    elastic(new_run, attempt, (2, 3, 1))


@pytest.mark.full
@pytest.mark.parametrize("stages", [(0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 3, 3), (3, 1, 2)])
@pytest.mark.parametrize("tied", ["true", "false"])
def test_every_stage(
    new_run: Callable[..., Path], attempt: Callable, stages: tuple[int, int, int], tied: str
) -> None:
    elastic(new_run, attempt, stages, f"model.tied={tied}")
