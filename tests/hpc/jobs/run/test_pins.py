"""Pins: a step that stays, taken off again, and what cannot be pinned."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc.jobs.errors import UsageError
from hpc.jobs.run import pins
from hpc.jobs.run.folder import Run
from hpc.jobs.run.pins import pin_checkpoint, pinned_steps, unpin_checkpoint


def run_with(home: Path, *steps: int) -> Run:
    for step in steps:
        folder = home / "run" / "checkpoints" / f"{step:08d}"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
    return Run(home / "run")


def test_the_newest_or_a_step_is_pinned_and_the_lines_of_people_stay(tmp_path: Path) -> None:
    run = run_with(tmp_path, 10, 20, 30)
    file = tmp_path / "run" / "checkpoints" / "pinned"
    file.write_text("# of the paper\n10  # table 2\n")
    assert pin_checkpoint(run, None) == 30
    assert pin_checkpoint(run, 20) == pin_checkpoint(run, 20) == 20
    assert file.read_text() == "# of the paper\n10  # table 2\n30\n20\n"
    assert unpin_checkpoint(run, 30) == 30
    assert file.read_text() == "# of the paper\n10  # table 2\n20\n"
    with pytest.raises(UsageError, match=r"pinned checkpoints of run: 10, 20. Name one"):
        unpin_checkpoint(run, None)
    unpin_checkpoint(run, 10)
    assert unpin_checkpoint(run, None) == 20
    assert file.read_text() == "# of the paper\n"
    with pytest.raises(UsageError, match=r"none. Nothing is to be taken off"):
        unpin_checkpoint(run, None)


def test_what_is_not_there_cannot_be_pinned(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="run has no checkpoint to pin"):
        pin_checkpoint(Run(tmp_path / "run"), None)
    run = run_with(tmp_path, 10, 20, 30)
    with pytest.raises(UsageError, match=r"no checkpoint of step 24. Nearest: 10, 20, 30"):
        pin_checkpoint(run, 24)
    with pytest.raises(UsageError, match=r"step 10 of run is not pinned. Pinned: none"):
        unpin_checkpoint(run, 10)
    assert not (tmp_path / "run" / "checkpoints" / "pinned").exists()


def test_a_checkpoint_that_its_job_removes_meanwhile_is_not_called_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_with(tmp_path, 10, 20)
    write = pins.replace_file

    def faster(path: Path, content: str) -> None:
        (tmp_path / "run" / "checkpoints" / "00000010" / "manifest.json").unlink(missing_ok=True)
        write(path, content)

    monkeypatch.setattr(pins, "replace_file", faster)
    with pytest.raises(UsageError, match="just removed by the run's own job"):
        pin_checkpoint(run, 10)
    assert pinned_steps(tmp_path / "run" / "checkpoints") == set()


@settings(max_examples=25)
@given(lines=st.lists(st.text(alphabet="0123456789 #a", max_size=6), max_size=6))
def test_pinning_and_taking_off_leaves_other_lines(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    run = run_with(tmp_path_factory.mktemp("drawn"), 777)
    file = run.folder / "checkpoints" / "pinned"
    file.write_text("".join(f"{line}\n" for line in lines))
    before = pinned_steps(file.parent)
    pin_checkpoint(run, None)
    assert pinned_steps(file.parent) == before | {777}
    unpin_checkpoint(run, 777)
    assert pinned_steps(file.parent) == before - {777}
    left = [line for line in lines if line.partition("#")[0].strip() != "777"]
    assert file.read_text().splitlines() == left
