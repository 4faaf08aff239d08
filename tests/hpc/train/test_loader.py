"""The background loader: the source's order and content, its errors, and what it leaves alone."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hpc.train.loader import Prefetched, loaded

Batch = dict[str, Tensor]


def numbered(count: int) -> Iterator[Batch]:
    return ({"x": torch.tensor([number])} for number in range(count))


def values(batches: Iterator[Batch]) -> list[int]:
    return [int(batch["x"]) for batch in batches]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.005)


@settings(max_examples=30, deadline=None)
@given(count=st.integers(0, 12), ahead=st.integers(0, 6))
def test_every_batch_comes_once_and_in_order(count: int, ahead: int) -> None:
    assert values(loaded(numbered(count), ahead, pinned=False)) == list(range(count))


def test_at_most_so_many_are_made_beforehand() -> None:
    made: list[int] = []

    def source() -> Iterator[Batch]:
        for number in range(100):
            made.append(number)
            yield {"x": torch.tensor([number])}

    batches = Prefetched(source(), ahead=3, pinned=False)
    until(lambda: len(made) == 4)  # three are ready, and one waits for room
    assert int(next(batches)["x"]) == 0
    until(lambda: len(made) == 5)
    batches.close()
    assert len(made) == 5
    with pytest.raises(StopIteration):
        next(batches)
    assert "batches" not in {thread.name for thread in threading.enumerate() if thread.is_alive()}


def test_an_error_of_the_source_comes_where_its_batch_would() -> None:
    def source() -> Iterator[Batch]:
        yield from numbered(2)
        raise ValueError("row 2 is torn")

    batches = loaded(source(), 4, pinned=False)
    assert [int(next(batches)["x"]) for _ in range(2)] == [0, 1]
    with pytest.raises(ValueError, match="row 2 is torn"):
        next(batches)
    with pytest.raises(StopIteration):
        next(batches)


@pytest.mark.parametrize(
    "draw",
    [lambda: torch.rand(1), lambda: np.random.random(), lambda: random.random()],
    ids=["torch", "numpy", "python"],
)
def test_a_source_that_draws_from_the_models_generators_stays_in_its_thread(
    draw: Callable[[], object],
) -> None:
    threads = set()

    def source(draws: bool) -> Iterator[Batch]:
        for number in range(3):
            threads.add(threading.current_thread().name)
            if draws:
                draw()
            yield {"x": torch.tensor([number])}

    assert values(loaded(source(True), 2, pinned=False)) == [0, 1, 2]
    assert threads == {threading.current_thread().name}
    assert values(loaded(source(False), 2, pinned=False)) == [0, 1, 2]
    assert "batches" in threads  # a generator of its own does not keep a source here
