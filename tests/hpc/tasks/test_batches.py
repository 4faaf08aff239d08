"""Batches: shared between ranks, decided by the seed, and picked up anywhere."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch

from conf import compose
from hpc import tasks
from hpc.data.publish import Published
from hpc.tasks.flights.data import rows_of
from hpc.tasks.lm.data import window_starts
from tests.hpc.tasks.conftest import FLIGHTS, TINY_LM


@pytest.mark.parametrize("name", ["flights", "lm"])
def test_resuming_at_a_step_goes_on_exactly_there(
    name: str, flights: Published, webster: Published
) -> None:
    cfg = compose("train", FLIGHTS if name == "flights" else TINY_LM)
    dataset = (flights if name == "flights" else webster).path
    task = tasks.load(name)
    arguments = (cfg, dataset, "train", 1, 2, 5)
    # 60 steps of 2 x 64 rows go over the end of an epoch of about 2,100.
    whole = list(islice(task.batches(*arguments, 0), 60))
    for start in (1, 17, 40):
        for one, other in zip(whole[start:], task.batches(*arguments, start), strict=False):
            assert one.keys() == other.keys()
            assert all(torch.equal(one[key], other[key]) for key in one)
    other_seed = next(task.batches(*arguments[:-1], 6, 0))
    assert not all(torch.equal(whole[0][key], other_seed[key]) for key in other_seed)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_an_epoch_of_rows(world_size: int) -> None:
    rows, size = 1000, 50
    seen = [
        rows_of(step * world_size + rank, rows, size, seed=3)
        for step in range(rows // size // world_size)
        for rank in range(world_size)
    ]
    flat = np.concatenate(seen)
    assert len(np.unique(flat)) == len(flat) == rows // size // world_size * world_size * size


def test_an_epoch_sees_each_token_once_as_a_target() -> None:
    tokens, context = 1000, 16
    windows = tokens // context - 1
    starts = np.sort(window_starts(np.arange(windows), tokens, context, seed=0))
    assert (np.diff(starts) == context).all()
    assert starts[0] >= 0 and starts[-1] + context + 1 <= tokens
    second = window_starts(np.arange(windows, 2 * windows), tokens, context, seed=0)
    assert not np.array_equal(np.sort(second), starts) or not np.array_equal(second, starts)


def test_targets_are_the_next_tokens(webster: Published) -> None:
    cfg = compose("train", TINY_LM)
    batch = next(tasks.load("lm").batches(cfg, webster.path, "train", 0, 1, 0, 0))
    assert batch["tokens"].shape == (4, 32) and batch["tokens"].dtype == torch.int64
    assert torch.equal(batch["tokens"][:, 1:], batch["targets"][:, :-1])


def test_too_small_a_split_is_a_sentence(flights: Published) -> None:
    cfg = compose("train", [*FLIGHTS, "micro_batch_size=100000"])
    with pytest.raises(ValueError, match="micro_batch_size=100000 is more than the"):
        next(tasks.load("flights").batches(cfg, flights.path, "train", 0, 1, 0, 0))
