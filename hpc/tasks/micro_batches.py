"""Micro-batches that can be picked up at any step: permutations of a split, shared by ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np


@dataclass(frozen=True)
class MicroBatches:
    """The micro-batches of one rank, from a step on; with its fields their rows are decided."""

    size: int
    """Rows or sequences of a micro-batch."""
    rank: int
    world_size: int
    seed: int
    """Of the order of the split's rows."""
    start_step: int = 0
    """Micro-batches of a rank before the first: optimizer steps * gradient_accumulation_steps."""

    def numbers(self) -> Iterator[int]:
        """The number of each micro-batch, counted over all ranks, endlessly."""
        return (step * self.world_size + self.rank for step in count(self.start_step))


def batch_rows(rows: int, micro_batches: MicroBatches) -> Iterator[np.ndarray]:
    """The rows [size] of each micro-batch of a split of `rows` rows, endlessly.

    Each epoch is a new permutation; all ranks share it out.
    """
    for number in micro_batches.numbers():
        yield rows_of(number, rows, micro_batches.size, micro_batches.seed)


def rows_of(index: int, rows: int, size: int, seed: int) -> np.ndarray:
    """The rows of micro-batch `index`, counted over all ranks; the tail of an epoch is left out.

    Raises ValueError when not even one batch fits into the split.
    """
    per_epoch = rows // size
    if per_epoch == 0:
        raise ValueError(f"micro_batch_size={size} is more than the {rows} rows of the split")
    epoch, place = divmod(index, per_epoch)
    return _order(rows, seed, epoch)[place * size : (place + 1) * size]


_cached: dict[tuple[int, int, int], np.ndarray] = {}


def _order(rows: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation of an epoch; the last one is kept, because a step needs it again."""
    key = (rows, seed, epoch)
    order = _cached.get(key)
    if order is None:  # another thread may clear it meanwhile
        order = np.random.Generator(np.random.PCG64([seed, epoch])).permutation(rows)
        _cached.clear()
        _cached[key] = order
    return order
