"""The flights table as model arrays, and batches that can be picked up at any step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from serving.artifact.table import read_split
from serving.runtime import flights_transform


@dataclass(frozen=True)
class Table:
    """One split in memory: categories int64 (rows, C), numbers fp32 (rows, N), late int8 (rows,),
    day datetime64[D] (rows,)."""

    categories: np.ndarray
    numbers: np.ndarray
    late: np.ndarray
    day: np.ndarray


def read(dataset: Path, split: str) -> Table:
    """Read a split through the dataset's frozen transform."""
    transform = flights_transform.load(Path(dataset) / "transform.json")
    raw, late, day = read_split(Path(dataset) / f"{split}.parquet")
    arrays = transform.encode(raw)
    return Table(arrays["categories"], arrays["numbers"], late, day)


def batches(
    cfg: DictConfig,
    dataset: Path,
    split: str,
    rank: int,
    world_size: int,
    seed: int,
    start_step: int,
) -> Iterator[dict[str, Tensor]]:
    """See `hpc.tasks.Task.batches`. Each epoch is a new permutation; all ranks share it out."""
    table = read(dataset, split)
    step = start_step
    while True:
        rows = rows_of(step * world_size + rank, len(table.late), cfg.micro_batch_size, seed)
        yield {
            "categories": torch.from_numpy(table.categories[rows]),
            "numbers": torch.from_numpy(table.numbers[rows]),
            "late": torch.from_numpy(table.late[rows]),
        }
        step += 1


def rows_of(index: int, rows: int, size: int, seed: int) -> np.ndarray:
    """The rows of micro-batch `index`, counted over all ranks; the tail of an epoch is left out.

    Raises ValueError when not even one batch fits into the table.
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
