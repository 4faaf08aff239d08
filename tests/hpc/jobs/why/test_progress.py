"""Checkpoints that are good, those that are passed over, and the steps that are lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc.jobs.why.progress import AttemptStart, PassedOver, Progress, attempt_start, progress


def fault(folder: Path) -> str | None:
    """As `hpc.train.manifest.checkpoint_fault`: here a file holds the fault."""
    found = folder / "fault"
    return found.read_text() if found.exists() else None


def checkpoint(folder: Path, step: int, broken: str = "") -> None:
    made = folder / f"{step:08d}"
    made.mkdir(parents=True)
    if broken:
        (made / "fault").write_text(broken)


def test_the_newest_good_one_is_gone_on_from(tmp_path: Path) -> None:
    checkpoint(tmp_path, 200, "an older one that is not looked at")
    checkpoint(tmp_path, 400)
    checkpoint(tmp_path, 420, "model.safetensors is missing")
    (tmp_path / ".staging-440").mkdir()
    (tmp_path / "latest").write_text("00000420\n")
    found = progress(tmp_path, 440, fault)
    assert found == Progress(440, 400, (PassedOver(420, "model.safetensors is missing"),))
    assert found.lost_steps == 40


def test_without_a_good_one_all_is_lost(tmp_path: Path) -> None:
    assert progress(tmp_path / "none", 7, fault) == Progress(7, 0, ())
    checkpoint(tmp_path, 5, "torn")
    assert progress(tmp_path, 7, fault).lost_steps == 7


def test_nothing_is_lost_behind_the_last_logged_step(tmp_path: Path) -> None:
    checkpoint(tmp_path, 10)
    assert progress(tmp_path, 8, fault).lost_steps == 0


@pytest.mark.parametrize(
    ("log", "start"),
    [
        ("model\nresumed after step 400\n", AttemptStart(400, ())),
        ("model\na new run\nstep 1\n", AttemptStart(0, ())),
        ("rank 0 begins\n", AttemptStart(None, ())),
        (
            "checkpoint 00000420 is not used: manifest.json is missing\nresumed after step 400\n",
            AttemptStart(400, (PassedOver(420, "manifest.json is missing"),)),
        ),
    ],
)
def test_the_start_of_an_attempt_in_its_log(log: str, start: AttemptStart) -> None:
    assert attempt_start(log) == start
