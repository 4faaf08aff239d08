"""What counts as a good checkpoint, and which ones stay."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hpc.train import manifest, randomness
from hpc.train.checkpoint import Checkpoints
from hpc.train.retention import Retention, removable


def written(home: Path, step: int) -> Path:
    folder = home / f"{step:08d}"
    (folder / "deepspeed").mkdir(parents=True)
    (folder / "deepspeed" / "part.pt").write_bytes(bytes([step % 256]) * 1000)
    (folder / "model.safetensors").write_bytes(b"weights")
    manifest.seal_checkpoint(folder, step, world_size=2, spec_digest="d")
    return folder


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: flip(f / "deepspeed" / "part.pt"), "part.pt is not what was written"),
        (lambda f: (f / "deepspeed" / "part.pt").write_bytes(b"x"), "has 1 bytes, not 1000"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda f: (f / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda f: (f / "manifest.json").write_text('{"format": 1'), "it cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, damage, words: str) -> None:
    written(tmp_path, 10)
    newest = written(tmp_path, 20)
    checkpoints = Checkpoints(tmp_path, Retention(2), spec_digest="d")
    assert checkpoints.newest() == 20
    damage(newest)
    assert words in (manifest.checkpoint_fault(newest) or "")
    assert checkpoints.newest() == 10


def test_a_folder_under_another_step_is_not_that_step(tmp_path: Path) -> None:
    written(tmp_path, 10).rename(tmp_path / "00000030")
    assert Checkpoints(tmp_path, Retention(2), "d").newest() == 0


def test_no_checkpoint_is_step_zero(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "nothing", Retention(2), "d").newest() == 0


def test_only_the_newest_stay_and_nothing_of_an_abandoned_future(tmp_path: Path) -> None:
    for step in (10, 20, 30, 90):
        written(tmp_path, step)
    (tmp_path / "00000010.universal").mkdir()
    Checkpoints(tmp_path, Retention(2), spec_digest="d").retire(newest=30)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["00000020", "00000030"]


SCORES = {20: 0.5, 40: 0.9, 60: 0.9, 70: 0.7}


@pytest.mark.parametrize(
    ("retention", "protected", "left"),
    [
        (Retention(1), set(), [80]),
        (Retention(3), set(), [60, 70, 80]),
        (Retention(1, every=30), set(), [30, 60, 80]),
        (Retention(1, best=1), set(), [60, 80]),  # of equal ones the newest
        (Retention(1, best=3), set(), [40, 60, 70, 80]),
        (Retention(1), {20, 50}, [20, 50, 80]),
        (Retention(2, every=40, best=1), {10}, [10, 40, 60, 70, 80]),
    ],
)
def test_what_stays(retention: Retention, protected: set[int], left: list[int]) -> None:
    steps = range(10, 90, 10)
    gone = removable(steps, 80, retention, SCORES, protected)
    assert sorted(set(steps) - set(gone)) == left


@given(
    steps=st.sets(st.integers(1, 40), min_size=1),
    newest=st.integers(1, 4),
    every=st.integers(0, 9),
    best=st.integers(0, 3),
    scored=st.dictionaries(st.integers(1, 40), st.floats(-1, 1)),
    protected=st.sets(st.integers(1, 40)),
)
def test_the_durable_one_and_the_protected_always_stay(
    steps: set[int], newest: int, every: int, best: int, scored: dict, protected: set[int]
) -> None:
    durable = max(steps)
    gone = removable(steps, durable, Retention(newest, every, best), scored, protected)
    left = steps - set(gone)
    assert durable in left and protected & steps <= left
    assert left >= set(sorted(steps)[-newest:])
    assert len(left) <= newest + len(protected) + best + (40 // every if every else 0)


def test_the_best_by_the_curve_and_a_pinned_one_stay(tmp_path: Path) -> None:
    home = tmp_path / "checkpoints"
    for step in (10, 20, 30, 40, 50):
        written(home, step)
    lines = [{"step": step, "validation_loss": loss} for step, loss in ((10, 3), (20, 1), (30, 2))]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (home / "pinned").write_text("# of the paper\n10  # the start\nnot a step\n")
    Checkpoints(home, Retention(1, best=1), "d", frozenset({30})).retire(newest=50)
    assert sorted(item.name for item in home.iterdir() if item.is_dir()) == [
        "00000010",
        "00000020",
        "00000030",
        "00000050",
    ]
    (home / "pinned").unlink()
    (home / "pinned").mkdir()  # what it protects is not known, so nothing goes
    Checkpoints(home, Retention(1), "d").retire(newest=50)
    assert (home / "00000010").is_dir()


def test_among_other_ranks_no_rank_draws_what_another_draws() -> None:
    drawn = []
    for number, step, rank, world_size in itertools.product((1, 2), (3, 4), (0, 1), (2, 4)):
        randomness.reseed_generators(number, step, rank, world_size)
        drawn.append((random.random(), float(np.random.rand()), float(torch.rand(()))))
    assert all(len(set(column)) == len(drawn) for column in zip(*drawn, strict=True))


def test_a_rank_continues_with_the_numbers_it_would_have_drawn(tmp_path: Path) -> None:
    def draw() -> list[float]:
        return [random.random(), float(np.random.rand()), float(torch.rand(()))]

    randomness.seed_generators(7)
    draw()
    randomness.write_random_state(tmp_path / "random.json")
    expected = draw()
    draw()
    randomness.restore_random_state(tmp_path / "random.json")
    assert draw() == expected
