"""A run of two ranks in small: its checkpoints, its store, and faults at any write of either."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from hpc.jobs.run.elastic import Layout
from hpc.train import manifest
from hpc.train.checkpoint import Checkpoints
from hpc.train.retention import Retention
from hpc.train.storage.copies import Copies, CopyAbandoned
from hpc.train.storage.store import FolderStore, StoreFault

LAYOUT = Layout(2, 1, 2, 1, ("exp_avg", "exp_avg_sq", "step"))
FILES = ("model.safetensors", "random-00000.json", "random-00001.json")


class Killed(BaseException):
    """The job is gone between two writes."""


@dataclass
class FaultyStore:
    """A folder store that is away, that dies, or that keeps other bytes, when it is told to."""

    inner: FolderStore
    away: bool = False
    corrupts: bool = False
    kill_after: int | None = None
    """Calls until the job is killed, before or after the call's work; None for never."""

    @property
    def address(self) -> str:
        return self.inner.address

    def put(self, source: Path, name: str) -> None:
        self._call()
        self.inner.put(source, name)
        if self.corrupts:
            damage((self.inner.folder / name).parent, Path(name).name)
        self._call()

    def open_file(self, name: str) -> BinaryIO:
        self._call()
        return self.inner.open_file(name)

    def sizes(self, prefix: str) -> dict[str, int]:
        self._call()
        return self.inner.sizes(prefix)

    def remove(self, names: Collection[str]) -> None:
        for name in names:
            self._call()
            self.inner.remove([name])

    def _call(self) -> None:
        if self.away:
            raise StoreFault("nobody answers")
        if self.kill_after is not None:
            self.kill_after -= 1
            if self.kill_after < 0:
                raise Killed


@dataclass
class Life:
    """One run over its attempts; `written` is the content of each step that was ever durable."""

    home: Path
    keep: int
    store: FaultyStore = field(init=False)
    step: int = 0
    ever_stored: set[int] = field(default_factory=set)
    """Steps that the store has held whole at some time."""
    checkpoints: Checkpoints = field(init=False)
    ranks: tuple[Copies, Copies] = field(init=False)

    def __post_init__(self) -> None:
        self.store = FaultyStore(FolderStore(self.home / "store"))
        self.folder.mkdir(parents=True)
        self.begin()

    @property
    def folder(self) -> Path:
        return self.home / "runs" / "life" / "checkpoints"

    def begin(self) -> int:
        """Begin an attempt; returns the step that it goes on from."""
        self.checkpoints = Checkpoints(self.folder, Retention(self.keep), "d", store=self.store)
        self.step = self.checkpoints.newest()
        self.checkpoints = Checkpoints(
            self.folder, Retention(self.keep), "d", frozenset({self.step}), self.store
        )
        self.ranks = (
            Copies(self.checkpoints, self.store, 0, 2),
            Copies(self.checkpoints, self.store, 1, 2),
        )
        for one in self.ranks:
            one.forget_faults()
        if self.step:
            self.copy()
        return self.step

    def save(self) -> None:
        """Ten more steps and a checkpoint, then what retention has go."""
        step = self.step + 10
        staging = self.checkpoints.staging(step)
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        for name in FILES:
            (staging / name).write_bytes(content_of(step, name))
        self.checkpoints.publish(staging, step, LAYOUT)
        self.step = step
        self.checkpoints.retire(step, self.ranks[0].confirmed_step)

    def copy(self) -> None:
        """One turn of both ranks, the second one first; rank 0 then finds its note."""
        steps = self.ranks[0].missing(self.step)
        for one in reversed(self.ranks):
            try:
                one.turn(steps, self.step)
            except CopyAbandoned:
                continue

    def whole_here(self) -> set[int]:
        return whole_below(self.folder)

    def whole_stored(self) -> set[int]:
        return whole_below(self.home / "store" / "life")


def whole_below(folder: Path) -> set[int]:
    found = [one for one in folder.iterdir() if one.name.isdigit()] if folder.is_dir() else []
    return {int(one.name) for one in found if not manifest.checkpoint_fault(one)}


def content_of(step: int, name: str) -> bytes:
    return f"{name} of step {step}".encode() * 3


def damage(checkpoint: Path, name: str) -> None:
    path = checkpoint / name
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(bytes(content))
