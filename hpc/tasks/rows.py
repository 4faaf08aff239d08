"""Batches of rows that can be picked up at any step: permutations of a split, shared by ranks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def batch_rows(
    rows: int, size: int, rank: int, world_size: int, seed: int, start_step: int
) -> Iterator[np.ndarray]:
    """The rows [size] of each micro-batch of this rank, endlessly; see `Task.batches`.

    Each epoch is a new permutation; all ranks share it out.
    """
    step = start_step
    while True:
        yield rows_of(step * world_size + rank, rows, size, seed)
        step += 1


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
    if key not in _cached:
        _cached.clear()
        _cached[key] = np.random.Generator(np.random.PCG64([seed, epoch])).permutation(rows)
    return _cached[key]
