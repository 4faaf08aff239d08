"""What counts as a good checkpoint, and which ones stay."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from hpc.train import manifest, randomness
from hpc.train.checkpoint import Checkpoints


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
    checkpoints = Checkpoints(tmp_path, keep=2, spec_digest="d")
    assert checkpoints.newest() == 20
    damage(newest)
    assert words in (manifest.checkpoint_fault(newest) or "")
    assert checkpoints.newest() == 10


def test_a_folder_under_another_step_is_not_that_step(tmp_path: Path) -> None:
    written(tmp_path, 10).rename(tmp_path / "00000030")
    assert Checkpoints(tmp_path, 2, "d").newest() == 0


def test_no_checkpoint_is_step_zero(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "nothing", 2, "d").newest() == 0


def test_only_the_newest_stay_and_nothing_of_an_abandoned_future(tmp_path: Path) -> None:
    for step in (10, 20, 30, 90):
        written(tmp_path, step)
    Checkpoints(tmp_path, keep=2, spec_digest="d")._retire(newest=30)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["00000020", "00000030"]


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
