"""Saves that fail, that are killed, and that go on beside the steps: the newest good one stays."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hpc.jobs.run.elastic import Layout
from hpc.train import checkpoint, manifest, saving
from hpc.train.checkpoint import Checkpoints
from hpc.train.distributed import World
from hpc.train.errors import CheckpointError
from hpc.train.host_copy import host_copy
from hpc.train.retention import Retention
from hpc.train.saving import Saving
from serving.artifact import durable

LAYOUT = Layout(1, 1, 2, 1, ("exp_avg", "exp_avg_sq", "step"))


class OneRank(World):
    """A job of one rank, without a process group."""

    def barrier(self) -> None:
        return

    def total(self, values: list[float]) -> list[float]:
        return list(values)


class Engine:
    """As much of DeepSpeed's engine as a save needs: one file, through its checkpoint engine."""

    def __init__(self, numbers: int = 1000) -> None:
        self.module = nn.Linear(2, 2)
        self.state = torch.zeros(numbers)
        self.checkpoint_engine = object()

    def save_checkpoint(self, folder: str, tag: str, save_latest: bool) -> None:
        self.checkpoint_engine.makedirs(folder, exist_ok=True)
        self.checkpoint_engine.save({"state": self.state}, path=f"{folder}/{tag}/part.pt")


@pytest.fixture(autouse=True)
def weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(engine: Engine, *_: object) -> Callable[[World], dict[str, Tensor]]:
        weight = engine.module.weight.detach().clone()
        return lambda _: {"weight": weight}

    monkeypatch.setattr(saving, "weights_of", of)  # they are DeepSpeed's; see test_elastic


def saving_in(home: Path, beside: bool, keep: int = 1) -> Saving:
    world = OneRank(0, 1, torch.device("cpu"))
    checkpoints = Checkpoints(home, Retention(keep), "d")
    return Saving(checkpoints, world, world if beside else None, 0)


def state_of(checkpoint: Path) -> Tensor:
    return torch.load(checkpoint / "deepspeed" / "part.pt")["state"]


@pytest.mark.parametrize("beside", [False, True])
def test_a_checkpoint_has_the_state_of_its_step(tmp_path: Path, beside: bool) -> None:
    saves, engine = saving_in(tmp_path, beside, keep=3), Engine()
    for step in (1, 2, 3):
        engine.state.add_(1)
        saves.save(engine, step, LAYOUT)
        engine.state.add_(1000)  # the next steps, while it is being written
        engine.state.sub_(1000)
    saves.finish()
    assert [(one.step, one.fault) for one in saves.ended()] == [(1, None), (2, None), (3, None)]
    assert saves.ended() == []
    for step in (1, 2, 3):
        assert manifest.checkpoint_fault(tmp_path / f"{step:08d}") is None
        assert state_of(tmp_path / f"{step:08d}").eq(step).all()
    assert (tmp_path / "latest").read_text() == "00000003\n"


def test_the_steps_go_on_while_a_checkpoint_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk_is_free, sealed = threading.Event(), manifest.seal_checkpoint

    def slow(*arguments: object) -> None:
        disk_is_free.wait(60)
        sealed(*arguments)

    monkeypatch.setattr(manifest, "seal_checkpoint", slow)
    saves, engine = saving_in(tmp_path, beside=True), Engine()
    saves.save(engine, 1, LAYOUT)  # returns although the disk does not
    engine.state.add_(7)
    assert saves.ended() == [] and saves.durable_step == 0
    disk_is_free.set()
    saves.finish()
    assert saves.durable_step == 1
    assert state_of(tmp_path / "00000001").eq(0).all()


def test_the_end_of_an_attempt_waits_for_what_is_being_written(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, Retention(1), "d")
    world = OneRank(0, 1, torch.device("cpu"))
    object.__setattr__(world, "second_group", lambda: world)
    with (
        pytest.raises(ZeroDivisionError),
        saving.saving(checkpoints, world, 0, asynchronous=True) as saves,
    ):
        saves.save(Engine(1_000_000), 1, LAYOUT)
        raise ZeroDivisionError
    assert checkpoints.newest() == 1


@pytest.mark.parametrize("beside", [False, True])
def test_an_error_that_is_none_of_the_disk_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: bool
) -> None:
    def lost(*_: object) -> None:
        raise RuntimeError("Connection closed by peer")

    saves = saving_in(tmp_path, beside)
    monkeypatch.setattr(saving, "save_file", lost)
    with pytest.raises(RuntimeError, match="closed by peer"):
        saves.save(Engine(), 1, LAYOUT)
        saves.save(Engine(), 2, LAYOUT)  # beside the steps it is raised at the next save
    assert saves.ended() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    home = tmp_path / "small"
    home.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(home)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield home
    subprocess.run(["umount", "-l", str(home)], check=True)


@pytest.mark.parametrize("beside", [False, True])
def test_a_full_disk_leaves_the_older_ones(small_disk: Path, beside: bool) -> None:
    saves = saving_in(small_disk, beside, keep=2)
    saves.save(Engine(), 1, LAYOUT)
    saves.save(Engine(1_000_000), 2, LAYOUT)  # 4 MB
    saves.wait()
    first, second = saves.ended()
    assert first.fault is None
    assert second.fault is not None
    assert saves.checkpoints.newest() == 1
    assert not list(small_disk.glob(".staging-*"))  # its room is free again
    with pytest.raises(CheckpointError, match=r"step 2 could not be written .* is of step 1\."):
        saves.finish()
    saves.save(Engine(), 3, LAYOUT)  # there is room again
    saves.finish()
    assert saves.checkpoints.newest() == saves.durable_step == 3


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize(
    "broken", ["seal_checkpoint", "replace_file", "sync_path", "save_file", "random_state"]
)
def test_a_fault_of_the_disk_in_any_part_leaves_the_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: bool, broken: str
) -> None:
    saves = saving_in(tmp_path, beside)
    saves.save(Engine(), 1, LAYOUT)
    saves.finish()

    def fails(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    places = {
        "seal_checkpoint": manifest,
        "replace_file": checkpoint,
        "sync_path": durable,
        "save_file": saving,
    }
    if broken in places:
        monkeypatch.setattr(places[broken], broken, fails)
    else:  # the rank's own file
        monkeypatch.setattr(Path, "write_text", fails)
    saves.save(Engine(), 2, LAYOUT)
    with pytest.raises(CheckpointError, match="Input/output error"):
        saves.finish()
    assert manifest.checkpoint_fault(tmp_path / "00000001") is None
    assert saves.durable_step == 1


def kill(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def after(call: Callable[..., object]) -> Callable[..., None]:
    def killed(*arguments: object, **named: object) -> None:
        call(*arguments, **named)
        kill()

    return killed


KILL_POINTS = {
    "with the state written": (saving, "save_file", kill, 1),
    "with all parts written": (saving, "save_file", after(saving.save_file), 1),
    "before it is sealed": (manifest, "seal_checkpoint", kill, 1),
    "in the seal": (manifest, "sync_tree", kill, 1),
    "sealed, not in its place": (
        manifest, "seal_checkpoint", after(manifest.seal_checkpoint), 1
    ),
    "in its place, without the pointer": (checkpoint, "replace_file", kill, 2),
    "before the older one goes": (Checkpoints, "retire", kill, 2),
    "while the older one goes": (checkpoint.shutil, "rmtree", kill, 2),
}  # fmt: skip


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("point", KILL_POINTS)
def test_killed_anywhere_the_newest_good_one_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: bool, point: str
) -> None:
    place, name, act, newest = KILL_POINTS[point]
    saves = saving_in(tmp_path, beside)
    saves.save(Engine(), 1, LAYOUT)
    saves.finish()
    engine = Engine()
    engine.state.add_(2)
    torch.set_num_threads(1)
    child = os.fork()
    if child == 0:
        try:
            monkeypatch.setattr(place, name, act)
            saves.save(engine, 2, LAYOUT)
            saves.finish()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    again = saving_in(tmp_path, beside)
    assert again.checkpoints.newest() == newest
    # The next attempt goes over what the killed one left, and leaves nothing of it.
    again.save(engine, 2, LAYOUT)
    again.finish()
    assert state_of(tmp_path / "00000002").eq(2).all()
    left = {item.name for item in tmp_path.iterdir()}
    assert left == {"00000002", "latest"}


def test_a_host_copy_keeps_what_is_shared_and_nothing_of_the_original() -> None:
    base = torch.arange(6.0)
    state = {"a": base[2:4], "b": [base[:3], (base, 7)], "c": torch.Size([2]), "d": {"deep": [1]}}
    copied = host_copy(state)
    base.zero_()
    state["d"]["deep"].append(2)
    assert copied["a"].tolist() == [2, 3] and copied["b"][1][0].tolist() == [0, 1, 2, 3, 4, 5]
    assert copied["d"] == {"deep": [1]} and copied["b"][1][1] == 7
    copied["b"][1][0][2] = 9
    assert copied["a"].tolist() == [9, 3] and copied["b"][0].tolist() == [0, 1, 9]
