"""The weights that init_from names: those of a good checkpoint, or a refusal with the nearest."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf import LockgateError
from hpc.jobs.run.folder import Run
from hpc.jobs.run.init_from import find_initial_weights
from hpc.train.manifest import FILE, seal_checkpoint
from serving.artifact.digest import bytes_sha256
from tests.hpc.jobs.spec.test_job_spec import spec_of

NAME = "flights-20260101-000001-aaaaaa"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A run with checkpoints of five steps, and one without any."""
    run = Run(tmp_path / NAME)
    for step in (10, 20, 30, 40, 50):
        folder = run.folder / "checkpoints" / f"{step:08d}"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"weights" * step)
        seal_checkpoint(folder, step, 2, "d")
    (tmp_path / "empty-20260101-000002-bbbbbb").mkdir()
    for folder in (run.folder, tmp_path / "empty-20260101-000002-bbbbbb"):
        spec_of({"steps": 50}).write(folder / "spec.yaml")
    return tmp_path


def weights(runs: Path, step: int) -> Path:
    return runs / NAME / "checkpoints" / f"{step:08d}" / "model.safetensors"


@pytest.mark.parametrize(
    ("words", "step"), [("aaaaaa", 50), (f"{NAME}@30", 30), ("flights@10", 10)]
)
def test_a_run_and_its_step_are_frozen_by_path_and_digest(
    runs: Path, words: str, step: int
) -> None:
    found = find_initial_weights(runs, words)
    assert (found.run, found.step, found.words) == (NAME, step, f"{NAME}@{step}")
    assert found.path == str(weights(runs, step))
    assert found.sha256 == bytes_sha256(b"weights" * step)


def test_damaged_weights_are_passed_over_without_a_step(runs: Path) -> None:
    weights(runs, 50).write_bytes(b"weights" * 49 + b"changed")
    (weights(runs, 40).parent / FILE).write_text("[]")
    weights(runs, 30).unlink()
    assert find_initial_weights(runs, NAME).step == 20


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (f"{NAME}@33", "no checkpoint of step 33. Nearest: 20, 30, 40, 50"),
        (f"{NAME}@1", "no checkpoint of step 1. Nearest: 10, 20, 30, 40"),
        (f"{NAME}@x", "a step is a number, as in"),
        (f"{NAME}@", "a step is a number, as in"),
        ("bbbbbb", "has no checkpoint"),
        ("nobody", "there is no run 'nobody'"),
        ("../x", "is not a name"),
    ],
)
def test_what_is_not_there_is_answered_with_the_nearest(
    runs: Path, words: str, sentence: str
) -> None:
    with pytest.raises(LockgateError) as refused:
        find_initial_weights(runs, words)
    assert sentence in str(refused.value)


def test_a_damaged_step_that_was_named_is_refused_with_the_others(runs: Path) -> None:
    weights(runs, 50).write_bytes(b"damaged")
    with pytest.raises(LockgateError, match="Other steps: 10, 20, 30, 40"):
        find_initial_weights(runs, f"{NAME}@50")
    for step in (10, 20, 30, 40):
        weights(runs, step).unlink()
    with pytest.raises(LockgateError, match=r"no checkpoint of \S+ is good"):
        find_initial_weights(runs, NAME)
