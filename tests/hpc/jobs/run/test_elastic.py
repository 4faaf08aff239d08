"""The rule for going on with other ranks or another ZeRO stage: the samples of a step stay."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc.jobs.run.elastic import CheckpointMisfit, Layout, fits, read_layout
from hpc.tasks.micro_batches import MicroBatches

ADAM = ("exp_avg", "exp_avg_sq", "step")
SAVED = Layout(2, 2, 8, 3, ADAM)


def numbers_of_a_step(size: int, ranks: int, accumulation: int, step: int) -> list[int]:
    """The micro-batches of one optimizer step, over all ranks."""
    found = []
    for rank in range(ranks):
        order = MicroBatches(size, rank, ranks, 1, step * accumulation).numbers()
        found += [next(order) for _ in range(accumulation)]
    return sorted(found)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.integers(0, 50))
def test_a_step_has_the_samples_it_would_have_had(
    before: int, accumulation: int, ranks: int, step: int
) -> None:
    saved = replace(SAVED, world_size=before, gradient_accumulation_steps=accumulation)
    if before * accumulation % ranks:
        with pytest.raises(CheckpointMisfit, match=f"{ranks} ranks cannot share"):
            fits(saved, ranks, 2, 8)
        return
    way = fits(saved, ranks, 2, 8)
    assert numbers_of_a_step(8, ranks, way.gradient_accumulation_steps, step) == numbers_of_a_step(
        8, before, accumulation, step
    )
    assert way.convert == (ranks != before) == bool(way.sentence)


@pytest.mark.parametrize(
    ("saved", "ranks", "stage", "size", "words"),
    [
        (SAVED, 2, 2, 4, "micro_batch_size=8 and this job has 4"),
        (SAVED, 4, 2, 8, "Numbers of ranks that can: 1, 2, 3, 6"),
        (replace(SAVED, zero_stage=0), 2, 1, 8, "Keep zero_stage=0"),
        (SAVED, 1, 0, 8, "Keep zero_stage=2"),
        (replace(SAVED, optimizer_state=(*ADAM, "momentum_buffer")), 1, 2, 8, "momentum_buffer"),
        (replace(SAVED, optimizer_state=("momentum_buffer",)), 1, 2, 8, "momentum_buffer"),
        (replace(SAVED, optimizer_state=()), 1, 2, 8, "no moments of Adam"),
    ],
)
def test_others_are_refused(saved: Layout, ranks: int, stage: int, size: int, words: str) -> None:
    with pytest.raises(CheckpointMisfit, match=words):
        fits(saved, ranks, stage, size)


@pytest.mark.parametrize(
    ("saved", "ranks", "stage", "convert", "words"),
    [
        (SAVED, 2, 2, False, ""),
        (replace(SAVED, optimizer_state=("momentum_buffer",)), 2, 2, False, ""),
        (SAVED, 2, 3, True, "ZeRO 2 -> 3, gradient_accumulation_steps=3: 48 rows"),
        (SAVED, 6, 1, True, "2 -> 6 ranks, ZeRO 2 -> 1, gradient_accumulation_steps=1: 48 rows"),
        # Without ZeRO every rank holds all of the state, so that of any optimizer goes on.
        (replace(SAVED, zero_stage=0, optimizer_state=("momentum_buffer",)), 1, 0, False, "2 -> 1"),
    ],
)
def test_the_way_on(saved: Layout, ranks: int, stage: int, convert: bool, words: str) -> None:
    way = fits(saved, ranks, stage, 8)
    assert way.convert == convert
    assert words in way.sentence
    assert bool(words) == bool(way.sentence)


def test_a_layout_is_read_from_a_manifest(tmp_path: Path) -> None:
    def write(**content: object) -> None:
        (tmp_path / "manifest.json").write_text(json.dumps(content))

    write(step=5, layout=asdict(SAVED))
    assert read_layout(tmp_path) == SAVED
    write(step=5)
    assert read_layout(tmp_path) is None
    write(step=5, layout={"world_size": 2})
    with pytest.raises(KeyError):
        read_layout(tmp_path)
