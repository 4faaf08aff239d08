"""Copies beside the steps: what is copied, by which rank, and what a store may hold."""

from __future__ import annotations

import json
import logging
import shutil
import threading
from pathlib import Path

import pytest
import torch

from hpc.jobs.run.stored import confirmed_steps
from hpc.train import saving
from hpc.train.checkpoint import Checkpoints
from hpc.train.distributed import World
from hpc.train.errors import CheckpointError
from hpc.train.retention import Retention
from hpc.train.saving import Saving
from hpc.train.storage.copies import Copies
from hpc.train.storage.names import part_of
from hpc.train.storage.store import FolderStore
from hpc.train.watch import Unwatched
from tests.hpc.train.storage.drawn_lives import LAYOUT, FaultyStore, Life, damage


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return Life(tmp_path, keep=1)


def stored(life: Life) -> list[str]:
    root = life.home / "store" / "life"
    return sorted(one.relative_to(root).as_posix() for one in root.rglob("*") if one.is_file())


def test_each_rank_copies_its_own_files_and_rank_0_the_manifest_after_all(life: Life) -> None:
    life.save()
    first, second = life.ranks
    second.turn([10], 10)
    assert stored(life) == ["00000010/random-00001.json"]
    assert confirmed_steps(life.folder) == ()
    first.turn([10], 10)
    assert stored(life) == [
        "00000010/manifest.json",
        "00000010/model.safetensors",
        "00000010/random-00000.json",
        "00000010/random-00001.json",
    ]
    assert confirmed_steps(life.folder) == (10,)
    assert first.confirmed_step == 10 and first.missing(10) == []


def test_every_file_of_deepspeeds_has_one_rank() -> None:
    names = [
        "deepspeed/bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt",
        "deepspeed/mp_rank_00_model_states.pt",
        "deepspeed/zero_pp_rank_2_mp_rank_00_optim_states.pt",
        "loader-00001.pt",
        "model.safetensors",
        "random-00002.json",
    ]
    files = dict.fromkeys(names, (1, ""))
    assert list(part_of(files, 1, 3)) == [names[0], names[3]]
    assert list(part_of(files, 2, 3)) == [names[2], names[5]]
    for ranks in (1, 2, 3, 8):
        parts = [name for rank in range(ranks) for name in part_of(files, rank, ranks)]
        assert sorted(parts) == names


def test_a_store_that_is_away_is_named_once_and_again_when_it_is_back(
    life: Life, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="hpc.train.storage.copies")
    life.store.away = True
    for _ in range(3):
        life.save()
        life.copy()
    assert life.whole_here() == {10, 20, 30}  # nothing goes
    of_rank_0 = [line for line in caplog.messages if "does not take checkpoints: nobody" in line]
    assert len(of_rank_0) == 2  # one of each rank
    life.store.away = False
    life.save()
    life.copy()
    assert any("is back: step 40" in line for line in caplog.messages)
    assert life.whole_stored() == {40}  # what retention has go is not copied
    life.save()
    assert life.whole_here() == {50} and life.whole_stored() == {40}  # 40 has its copy
    life.copy()
    assert life.whole_stored() == {50}


def test_a_part_that_a_rank_could_not_copy_is_no_checkpoint(
    life: Life, caplog: pytest.LogCaptureFixture
) -> None:
    life.save()
    life.store.away = True
    life.ranks[1].turn([10], 10)
    life.store.away = False
    life.ranks[0].turn([10], 10)
    assert "rank 1: nobody answers" in caplog.text
    assert confirmed_steps(life.folder) == ()
    assert life.checkpoints.newest() == 10
    life.copy()
    assert confirmed_steps(life.folder) == (10,)


def test_a_copy_that_the_store_lost_is_made_again(life: Life) -> None:
    life.save()
    life.copy()
    shutil.rmtree(life.home / "store" / "life")
    life.save()
    life.copy()
    assert life.whole_stored() == {20}
    life.copy()  # another turn with nothing to do changes nothing
    assert life.whole_stored() == {20}


def test_a_damaged_checkpoint_is_not_copied_and_no_fault_of_the_store(
    life: Life, caplog: pytest.LogCaptureFixture
) -> None:
    life.save()
    damage(life.folder / "00000010", "random-00001.json")
    life.copy()
    assert "checkpoint 00000010 is not copied: rank 1: random-00001.json is not what" in caplog.text
    assert "does not take" not in caplog.text
    assert confirmed_steps(life.folder) == () and life.ranks[0].missing(10) == []


def test_a_pinned_step_stays_in_folder_and_store(life: Life) -> None:
    life.save()
    (life.folder / "pinned").write_text("10\n")
    for _ in range(3):
        life.save()
        life.copy()
    assert life.whole_stored() == {10, 40}
    assert {10, 40} <= life.whole_here()


def test_what_is_passed_over_is_named_and_the_store_is_used(
    life: Life, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="hpc.train.checkpoint")
    life.save()
    life.copy()
    (life.home / "store" / "life" / "00000030").mkdir()
    (life.home / "store" / "life" / "00000030" / "model.safetensors").write_text("half")
    damage(life.folder / "00000010", "model.safetensors")
    assert life.begin() == 10
    lines = "\n".join(caplog.messages)
    assert "checkpoint 00000030 in" in lines and "manifest.json is missing: it was not" in lines
    assert "checkpoint 00000010 is not used: model.safetensors is not what was" in lines
    assert "checkpoint 00000010 was taken from" in lines
    assert life.whole_here() == {10}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"files": {"../../../escaped": [4, "0" * 64]}}, "which is no file of a checkpoint"),
        ({"files": {"/etc/escaped": [4, "0" * 64]}}, "which is no file of a checkpoint"),
        ({"files": {"model.safetensors": [4, "0" * 64]}}, "bytes, not 4"),
        ({"step": 20}, "its manifest is of step 20"),
        ({"format": 99}, "its manifest cannot be read"),
        ({"files": 3}, "its manifest cannot be read"),
    ],
)
def test_a_manifest_of_a_store_is_not_believed(
    life: Life, caplog: pytest.LogCaptureFixture, change: dict, words: str
) -> None:
    life.save()
    life.copy()
    path = life.home / "store" / "life" / "00000010" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    damage(life.folder / "00000010", "model.safetensors")
    assert life.begin() == 0
    assert words in caplog.text
    assert not list(life.home.rglob("escaped")) and not list(life.folder.glob(".staging-*"))


def test_a_run_never_begins_from_nothing_because_its_store_is_away(life: Life) -> None:
    life.save()
    life.copy()
    damage(life.folder / "00000010", "model.safetensors")
    life.store.away = True
    with pytest.raises(CheckpointError, match=r"of step 10 is in the store .*which is away"):
        life.begin()


class LeaderAlone(World):
    """A job of one rank, without a process group."""

    def barrier(self) -> None:
        return

    def total(self, values: list[float]) -> list[float]:
        return list(values)

    def from_leader(self, value: int) -> int:
        return value


class SmallEngine:
    def __init__(self) -> None:
        self.checkpoint_engine = object()

    def save_checkpoint(self, folder: str, tag: str, save_latest: bool) -> None:
        self.checkpoint_engine.save({"state": torch.zeros(10)}, path=f"{folder}/{tag}/part.pt")


def test_the_steps_do_not_wait_for_the_store_and_the_end_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "weights_of", lambda *_: lambda _: {"weight": torch.zeros(2)})
    open_door = threading.Event()

    class SlowStore(FaultyStore):
        def put(self, source: Path, name: str) -> None:
            assert open_door.wait(60)
            super().put(source, name)

    store = SlowStore(FolderStore(tmp_path / "store"))
    world = LeaderAlone(0, 1, torch.device("cpu"))
    folder = tmp_path / "run" / "checkpoints"
    checkpoints = Checkpoints(folder, Retention(1), "d", store=store)
    saves = Saving(checkpoints, world, None, 0, Copies(checkpoints, store, 0, 1))
    for step in (1, 2, 3):  # 2 and 3 are not offered: the copy of 1 is under way
        saves.save(SmallEngine(), step, LAYOUT)
    assert sorted(checkpoints.steps()) == [1, 2, 3] and confirmed_steps(folder) == ()
    open_door.set()
    saves.hand_over(60, Unwatched())
    assert confirmed_steps(folder) == (3,)
    assert checkpoints.steps() == [3]
    assert [one.name for one in (tmp_path / "store" / "run").iterdir()] == ["00000003"]
