"""Batches of a loader that has a state of its own: torchdata's protocol, by structure.

`task.batches` may give any iterable with `state_dict()` and `load_state_dict(state)`, such as
torchdata's StatefulDataLoader. Each rank's state is saved with a checkpoint and restored with it.
Such a loader is read in the steps' thread, so that its state is that of the batches that were
used; it reads ahead with workers of its own.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.stateful import Stateful

from hpc.train.errors import CheckpointError
from hpc.train.loader import loaded
from hpc.train.randomness import generators_kept

Batch = dict[str, Tensor]


class StatefulBatches:
    """An endless iterator over the passes of a loader, and its state between two batches."""

    def __init__(self, loader: Any, state: bytes | None) -> None:
        """Begin anew, or where `state` was taken.

        Raises `CheckpointError` for a state that the loader does not take.
        """
        self._loader = loader
        if state is None:
            self._pass: Iterator[Batch] = iter(loader)
            return
        try:
            loader.load_state_dict(torch.load(io.BytesIO(state), weights_only=True))
            self._pass = iter(loader)
        except Exception as error:
            raise CheckpointError(
                f"the task's loader, {type(loader).__name__}, does not take the state that was "
                f"saved with the checkpoint: {type(error).__name__}: {error}. Go on with the "
                "code and the packages of before, or start a new run with init_from."
            ) from error

    def __iter__(self) -> StatefulBatches:
        return self

    def __next__(self) -> Batch:
        for _ in range(2):
            try:
                return next(self._pass)
            except StopIteration:
                self._pass = iter(self._loader)
        raise CheckpointError(f"the task's loader, {type(self._loader).__name__}, has no batch")

    def state(self) -> bytes:
        """The state after the batch that was given last.

        Raises `CheckpointError` for one that holds more than plain values and tensors.
        """
        buffer = io.BytesIO()
        try:
            torch.save(self._loader.state_dict(), buffer)
            torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
        except (pickle.PickleError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"the state of the task's loader, {type(self._loader).__name__}, cannot be saved: "
                "it may hold numbers, texts, tensors, and lists and mappings of them "
                f"({str(error).splitlines()[0][:200]})."
            ) from error
        return buffer.getvalue()


def training_batches(
    make: Callable[[], Any], state: bytes | None, ahead: int, pinned: bool
) -> StatefulBatches | Iterator[Batch]:
    """The batches of the source that `make` gives, from a saved `state` of it on if there is one.

    A source without a state begins where the task put it; see `hpc.train.loader.loaded` for
    `ahead` and `pinned`. Raises `CheckpointError` for a state that nobody takes.
    """
    # What a loader draws for its start it has drawn in the attempt before.
    with generators_kept() if state is not None else nullcontext():
        source = make()
        if isinstance(source, Stateful):
            return StatefulBatches(source, state)
    if state is not None:
        raise CheckpointError(
            "the checkpoint holds the state of the task's loader, and the loader of this code has "
            "none to restore (state_dict, load_state_dict). Go on with the code of before."
        )
    return loaded(source, ahead, pinned)


def state_of(batches: StatefulBatches | Iterator[Batch]) -> bytes | None:
    """The state to be saved with a checkpoint; None for batches that go by their position."""
    return batches.state() if isinstance(batches, StatefulBatches) else None


def loader_file(rank: int) -> str:
    """Name of the file of a rank's loader in a checkpoint."""
    return f"loader-{rank:05d}.pt"


def saved_state(checkpoint: Path | None, rank: int) -> bytes | None:
    """The state of a rank's loader in a checkpoint; None without one."""
    if checkpoint is None:
        return None
    try:
        return (checkpoint / loader_file(rank)).read_bytes()
    except FileNotFoundError:
        return None
