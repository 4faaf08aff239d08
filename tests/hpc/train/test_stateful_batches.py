"""Loaders with a state of their own: where they go on, what they may not hold, and who fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hpc.jobs.run.elastic import CheckpointMisfit, Layout, fits
from hpc.train import randomness
from hpc.train.errors import CheckpointError
from hpc.train.loader import Prefetched
from hpc.train.stateful_batches import StatefulBatches, state_of, training_batches


class ShuffledLoader:
    """Passes over `rows` rows, each one shuffled by torch's generator, as torch's sampler is."""

    def __init__(self, rows: int = 5) -> None:
        torch.rand(())  # as torchdata's sampler draws a seed when it is made
        self.rows, self.order, self.place = rows, [], 0

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        if self.place in (0, len(self.order)):
            self.order, self.place = torch.randperm(self.rows).tolist(), 0
        while self.place < self.rows:
            self.place += 1
            yield {"row": torch.tensor([self.order[self.place - 1]])}

    def state_dict(self) -> dict[str, Any]:
        return {"order": self.order, "place": self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.order, self.place = list(state["order"]), state["place"]


def drawn(batches: Iterator, count: int) -> list[tuple[int, float]]:
    """Rows, each with the number that a model's dropout would draw after it."""
    return [(int(next(batches)["row"]), float(torch.rand(()))) for _ in range(count)]


def batches_of(make: Callable[[], Any], state: bytes | None) -> StatefulBatches:
    batches = training_batches(make, state, ahead=2, pinned=False)
    assert isinstance(batches, StatefulBatches)
    return batches


@settings(max_examples=30)
@given(before=st.integers(0, 17), after=st.integers(1, 17))
def test_rows_and_random_numbers_go_on_as_if_nothing_had_been(before: int, after: int) -> None:
    randomness.seed_generators(3)
    whole = drawn(batches_of(ShuffledLoader, None), before + after)
    randomness.seed_generators(3)
    first = batches_of(ShuffledLoader, None)
    seen = drawn(first, before)
    state, generators = first.state(), randomness.random_state()
    randomness.seed_generators(99)
    randomness._restore(generators)
    assert seen + drawn(batches_of(ShuffledLoader, state), after) == whole


@pytest.mark.parametrize("workers", [0, 2])
def test_torchdatas_loader_goes_on_bit_for_bit(workers: int) -> None:
    if find_spec("torchdata") is None:
        pytest.skip("torchdata is not installed here: pip install torchdata")
    from torchdata.stateful_dataloader import StatefulDataLoader

    rows = [{"row": torch.tensor([one])} for one in range(7)]

    def batches(state: bytes | None) -> StatefulBatches:
        options = {"batch_size": None, "shuffle": True, "num_workers": workers}
        return batches_of(lambda: StatefulDataLoader(rows, **options), state)

    for before in (1, 4, 7, 9):
        randomness.seed_generators(3)
        whole = drawn(batches(None), 18)
        randomness.seed_generators(3)
        first = batches(None)
        seen = drawn(first, before)
        state, generators = first.state(), randomness.random_state()
        randomness.seed_generators(99)
        randomness._restore(generators)
        assert seen + drawn(batches(state), 18 - before) == whole, before


def test_a_source_without_a_state_goes_by_its_position() -> None:
    source = iter([{"row": torch.tensor([one])} for one in range(3)])
    batches = training_batches(lambda: source, None, ahead=2, pinned=False)
    assert isinstance(batches, Prefetched) and state_of(batches) is None
    batches.close()
    with pytest.raises(CheckpointError, match="loader of this code has none to restore"):
        training_batches(lambda: iter([]), b"state", ahead=0, pinned=False)


def test_a_loader_with_a_state_is_read_by_the_steps_alone() -> None:
    batches = training_batches(ShuffledLoader, None, ahead=2, pinned=False)
    next(batches)
    assert isinstance(batches, StatefulBatches) and state_of(batches) == batches.state()


def test_a_state_that_does_not_fit_is_a_sentence() -> None:
    state = StatefulBatches(ShuffledLoader(), None).state()

    class OtherLoader(ShuffledLoader):
        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.place = state["epoch"]

    with pytest.raises(CheckpointError, match=r"OtherLoader, does not take the state.*'epoch'"):
        StatefulBatches(OtherLoader(), state)


def test_a_state_with_an_object_of_its_own_is_refused_when_it_is_saved() -> None:
    class ObjectLoader(ShuffledLoader):
        def state_dict(self) -> dict[str, Any]:
            return {"loader": ShuffledLoader()}

    with pytest.raises(CheckpointError, match="ObjectLoader, cannot be saved"):
        StatefulBatches(ObjectLoader(), None).state()


def test_an_empty_loader_is_a_sentence() -> None:
    with pytest.raises(CheckpointError, match="ShuffledLoader, has no batch"):
        next(StatefulBatches(ShuffledLoader(0), None))


def test_other_ranks_cannot_share_the_states_of_these() -> None:
    layout = Layout(2, 1, 2, 1, ("exp_avg", "exp_avg_sq", "step"), stateful_loader=True)
    with pytest.raises(CheckpointMisfit, match="for each of 2 ranks, and 1 ranks cannot share it"):
        fits(layout, 1, 1, 2)
    assert fits(layout, 2, 1, 2).sentence == ""
