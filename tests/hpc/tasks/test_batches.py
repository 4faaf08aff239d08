"""Batches: shared between ranks, decided by the seed, and picked up anywhere."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from conf import compose
from hpc.data.publish import Published
from hpc.jobs.spec.config import train_config
from hpc.tasks.micro_batches import MicroBatches, rows_of
from hpc.tasks.text.data import window_starts
from tests.hpc.tasks.conftest import (
    FLIGHTS,
    KINDS,
    TINY_LM,
    digits_config,
    phrases_config,
    table_config,
)

CONFIGS = {
    "flights": lambda: compose("train", FLIGHTS),
    "lm": lambda: compose("train", TINY_LM),
    "wine": lambda: table_config("wine", {}),
    "diabetes": lambda: table_config("diabetes", {}),
    "digits": digits_config,
    "phrases": phrases_config,
}


@pytest.mark.parametrize("name", KINDS)
def test_resuming_at_a_step_goes_on_exactly_there(
    name: str, request: pytest.FixtureRequest
) -> None:
    dataset = request.getfixturevalue("webster" if name == "lm" else name).path
    config = train_config(CONFIGS[name]())
    task, size = config.task, config.run.micro_batch_size
    first = MicroBatches(size, rank=1, world_size=2, seed=5)
    # 60 steps of two ranks go over the end of an epoch.
    whole = list(islice(task.batches(dataset, "train", first), 60))
    for start in (1, 17, 40):
        later = task.batches(dataset, "train", replace(first, start_step=start))
        for one, other in zip(whole[start:], later, strict=False):
            assert one.keys() == other.keys()
            assert all(torch.equal(one[key], other[key]) for key in one)
    other_seed = next(task.batches(dataset, "train", replace(first, seed=6)))
    assert not all(
        whole[0][key].shape == other_seed[key].shape and torch.equal(whole[0][key], other_seed[key])
        for key in other_seed
    )
    units = size * (config.task.context if name == "lm" else 1)
    assert task.unit_count(whole[0]) == units


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
    task = train_config(compose("train", TINY_LM)).task
    batch = next(task.batches(webster.path, "train", MicroBatches(4, 0, 1, 0)))
    assert batch["tokens"].shape == (4, 32) and batch["tokens"].dtype == torch.int64
    assert torch.equal(batch["tokens"][:, 1:], batch["targets"][:, :-1])


def test_too_small_a_split_is_a_sentence(flights: Published) -> None:
    task = train_config(compose("train", FLIGHTS)).task
    with pytest.raises(ValueError, match="micro_batch_size=100000 is more than the"):
        next(task.batches(flights.path, "train", MicroBatches(100_000, 0, 1, 0)))
