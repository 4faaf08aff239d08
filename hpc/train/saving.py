"""Saving of checkpoints during a run: in the step, or beside it on a thread of each rank.

Beside the steps only a copy of the state in host memory holds up training. The thread writes it,
and the ranks' threads agree over a process group of their own, in which no step takes part.

A checkpoint that cannot be written (a full disk) leaves the older ones and the run goes on; only
at the end of an attempt, where its steps would be lost, is it an error.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from hpc.jobs.run.elastic import Layout
from hpc.train import randomness
from hpc.train.checkpoint import PARTS, WEIGHTS, Checkpoints, random_file
from hpc.train.distributed import World
from hpc.train.engine import whole_weights
from hpc.train.errors import CheckpointError
from hpc.train.fragments import assemble, take_fragments
from hpc.train.state import WRITE_FAULTS, StateFiles, take_state
from hpc.train.stateful_batches import loader_file
from hpc.train.storage.copies import Copies
from hpc.train.watch import Watch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Saved:
    """The end of one save. `fault` is None for a checkpoint that is durable."""

    step: int
    folder: Path
    fault: str | None
    seconds: float
    """From the call until it was durable or had failed."""


@dataclass(frozen=True)
class _Content:
    """The content of one checkpoint, as far as this rank writes it."""

    step: int
    layout: Layout
    staging: Path
    state: StateFiles
    random_state: str
    loader_state: bytes | None
    weights: Callable[[World], dict[str, Tensor]]
    """Gives rank 0 the whole weights; a collective call of the ranks in its argument."""
    began: float


@dataclass
class Saving:
    """The saves of one attempt, on one rank. Every method but `ended` is a collective call."""

    checkpoints: Checkpoints
    world: World
    beside: World | None
    """The ranks' threads; None where the steps wait until a checkpoint is durable."""
    durable_step: int
    """Of the newest durable checkpoint."""
    copies: Copies | None = None
    """This rank's copies in the run's checkpoint store; None without one."""
    _ended: list[Saved] = field(default_factory=list, init=False)
    _last: Saved | None = field(default=None, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)
    _error: Exception | None = field(default=None, init=False)

    def save(
        self, engine: Any, step: int, layout: Layout, loader_state: bytes | None = None
    ) -> None:
        """Save the state after `step` steps; waits for the save before, if it is not done yet.

        `loader_state` is that of this rank's data loader, where it has one.

        A fault of the disk is in `ended`; any other error of this save or the one before is raised.
        """
        began = time.perf_counter()
        self.wait()
        self._raise_error()
        staging = self.checkpoints.staging(step)
        if self.beside is None:
            self.checkpoints.prepare(staging, self.world)
        content = self._content(engine, step, layout, staging, loader_state, began)
        if self.beside is None:
            self._write(content, self.world)
            self._raise_error()
            return
        self._thread = threading.Thread(
            target=self._write, args=(content, self.beside), name="checkpoint", daemon=True
        )
        self._thread.start()

    def ended(self) -> list[Saved]:
        """The saves that ended since the last call; waits for none."""
        found = []
        while self._ended:
            found.append(self._ended.pop(0))
        return found

    def finish(self) -> None:
        """Wait until the last save is durable. Raises `CheckpointError` if it is not."""
        self.wait()
        self._raise_error()
        if self._last is not None and self._last.fault is not None:
            raise CheckpointError(
                f"the checkpoint of step {self._last.step} could not be written to "
                f"{self.checkpoints.folder}: {self._last.fault}. The newest that is whole is of "
                f"step {self.durable_step}. Make room, and resume the run."
            )

    def hand_over(self, seconds: float, watch: Watch) -> None:
        """Copy to the store what is missing there, once more, and wait so long for it.

        What is not copied by then is whole in the run's folder, and is copied when the run goes on.
        """
        self.wait()
        if self.copies is None:
            return
        deadline = time.monotonic() + seconds
        for _ in range(2):  # what was offered, and then what is missing still
            self.copies.wait(deadline, lambda: watch.enter("checkpoint"))
            self._offer_copies(self.world)
        self.copies.wait(deadline, lambda: watch.enter("checkpoint"))
        if not self.world.leads:
            return
        self.checkpoints.retire(self.durable_step, self.copies.confirmed_step)
        if missing := self.copies.missing(self.durable_step):
            log.warning(
                "checkpoints of steps %s are not in the store %s; they are in %s, and are copied "
                "when the run goes on",
                ", ".join(map(str, missing)),
                *(self.copies.store.address, self.checkpoints.folder),
            )

    def _offer_copies(self, world: World) -> None:
        """Have every rank copy what the store lacks, unless one is busy; a collective call."""
        copies = self.copies
        if copies is None or world.total([float(copies.busy)])[0]:
            return
        missing = _missing(copies, self.durable_step) if world.leads else []
        count = world.from_leader(len(missing))
        steps = [world.from_leader(missing[at] if world.leads else 0) for at in range(count)]
        if steps:
            copies.offer(steps, self.durable_step)

    def wait(self) -> None:
        """Wait until nothing is being written, well or not."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _content(
        self,
        engine: Any,
        step: int,
        layout: Layout,
        staging: Path,
        loader_state: bytes | None,
        began: float,
    ) -> _Content:
        later = self.beside is not None
        return _Content(
            step=step,
            layout=layout,
            staging=staging,
            state=take_state(engine, staging, PARTS, later),
            random_state=randomness.random_state(),
            loader_state=loader_state,
            weights=weights_of(engine, self.world, later),
            began=began,
        )

    def _write(self, content: _Content, world: World) -> None:
        """Write, seal and publish; a collective call of the ranks in `world`, raises nothing."""
        target = self.checkpoints.target(content.step)
        try:
            fault = self._written(content, world)
        except Exception as error:  # noqa: BLE001  a lost rank, say; the steps raise it
            self._error = error
            return
        self._last = Saved(content.step, target, fault, time.perf_counter() - content.began)
        self._ended.append(self._last)

    def _written(self, content: _Content, world: World) -> str | None:
        """None once the checkpoint is durable, the same on every rank; else this rank's reason."""
        checkpoints, staging = self.checkpoints, content.staging
        if self.beside is not None:
            checkpoints.prepare(staging, world)
        fault: Exception | None = None
        weights = content.weights(world)
        try:
            content.state.write()
            (staging / random_file(world.rank)).write_text(content.random_state)
            if content.loader_state is not None:
                (staging / loader_file(world.rank)).write_bytes(content.loader_state)
            if world.leads:
                save_file(weights, staging / WEIGHTS)
        except WRITE_FAULTS as error:
            fault = error
        if world.total([float(fault is not None)])[0] == 0 and world.leads:
            try:
                checkpoints.publish(staging, content.step, content.layout)
            except OSError as error:
                fault = error
        failed = world.total([float(fault is not None)])[0] > 0
        if failed and world.leads:
            shutil.rmtree(staging, ignore_errors=True)
        if not failed:
            self.durable_step = content.step
            if world.leads:
                copied = self.copies.confirmed_step if self.copies else None
                checkpoints.retire(content.step, copied)
            self._offer_copies(world)
        return _words(fault) if failed else None


@contextmanager
def saving(
    checkpoints: Checkpoints, world: World, start_step: int, asynchronous: bool
) -> Iterator[Saving]:
    """The saves of an attempt from step `start_step` on; a collective call.

    What is being written when the attempt ends, in an error too, is written to its end.
    """
    beside = world.second_group() if asynchronous else None
    copies = None
    if checkpoints.store is not None:
        copies = Copies(checkpoints, checkpoints.store, world.rank, world.size)
        copies.forget_faults()
    made = Saving(checkpoints, world, beside, start_step, copies)
    try:
        if start_step:
            made._offer_copies(world)
        yield made
    finally:
        made.wait()
        if copies is not None:
            copies.abandon()


def _missing(copies: Copies, newest: int) -> list[int]:
    """See `Copies.missing`; none, and logged, where the run's folder cannot be read."""
    try:
        return copies.missing(newest)
    except OSError as error:
        log.warning("checkpoints could not be copied: %s", error)
        return []


def weights_of(engine: Any, world: World, later: bool) -> Callable[[World], dict[str, Tensor]]:
    """The weights as they are now, put together now or, with `later`, when they are written."""
    if later:
        return partial(assemble, take_fragments(engine, world))
    weights = whole_weights(engine)
    return lambda _: weights


def _words(fault: Exception | None) -> str:
    if fault is None:
        return "another rank could not write its part"
    return fault.strerror or str(fault) if isinstance(fault, OSError) else str(fault).split("\n")[0]
