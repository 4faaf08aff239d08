"""Token windows from the memory-mapped splits, and batches that can be picked up at any step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hpc.tasks.micro_batches import MicroBatches


def read_tokens(dataset: Path, split: str) -> np.ndarray:
    """The tokens of a split, uint16 (tokens,), memory-mapped and read-only."""
    return np.memmap(Path(dataset) / f"{split}.bin", dtype="<u2", mode="r")


def batches(
    dataset: Path, split: str, context: int, micro_batches: MicroBatches
) -> Iterator[dict[str, Tensor]]:
    """See `hpc.tasks.task.Task.batches`. `tokens` and `targets`, int64 (micro batch, context).

    An epoch cuts the split into windows of `context` tokens, shifted by a random offset
    and in random order: every token is seen once an epoch, by one rank.
    """
    tokens = read_tokens(dataset, split)
    for number in micro_batches.numbers():
        first = number * micro_batches.size
        indices = np.arange(first, first + micro_batches.size)
        starts = window_starts(indices, len(tokens), context, micro_batches.seed)
        windows = tokens[starts[:, None] + np.arange(context + 1)].astype(np.int64)
        yield {
            "tokens": torch.from_numpy(windows[:, :-1].copy()),
            "targets": torch.from_numpy(windows[:, 1:].copy()),
        }


def window_starts(indices: np.ndarray, tokens: int, context: int, seed: int) -> np.ndarray:
    """The start of each window, for window numbers counted over all ranks and epochs.

    Raises ValueError when the split is too short for two windows.
    """
    per_epoch = tokens // context - 1  # one less leaves room for the offset and the last target
    if per_epoch < 1:
        raise ValueError(f"task.context={context} is too long for a split of {tokens} tokens")
    epochs, places = np.divmod(indices, per_epoch)
    starts = np.empty(len(indices), dtype=np.int64)
    for epoch in np.unique(epochs):
        order, offset = _epoch(per_epoch, context, seed, int(epoch))
        here = epochs == epoch
        starts[here] = offset + order[places[here]] * context
    return starts


_cached: dict[tuple[int, int, int, int], tuple[np.ndarray, int]] = {}


def _epoch(windows: int, context: int, seed: int, epoch: int) -> tuple[np.ndarray, int]:
    """The order and the offset of an epoch's windows; the last two are kept for the next steps."""
    key = (windows, context, seed, epoch)
    found = _cached.get(key)
    if found is None:  # another thread may drop it meanwhile
        for old in list(_cached)[:-1]:
            _cached.pop(old, None)
        draw = np.random.Generator(np.random.PCG64([seed, epoch]))
        found = _cached[key] = draw.permutation(windows), int(draw.integers(context))
    return found
