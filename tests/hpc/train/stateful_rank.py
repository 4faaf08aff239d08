"""One rank as in rank.py, whose task gives a loader with a state of its own.

Its order comes from torch's generator, so that no position in the sample order gives it.
"""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hpc.tasks.micro_batches import MicroBatches
from hpc.tasks.text import TextTask

PASS = 3
"""Micro-batches of one pass: a run begins several."""


class DrawnLoader:
    """Passes of the task's own batches, in an order that is drawn for each pass."""

    def __init__(self, batches: list[dict[str, Tensor]]) -> None:
        self.batches, self.order, self.place = batches, [], 0

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        if self.place == len(self.order):
            self.order, self.place = torch.randperm(len(self.batches)).tolist(), 0
        while self.place < len(self.order):
            self.place += 1
            yield self.batches[self.order[self.place - 1]]

    def state_dict(self) -> dict[str, Any]:
        return {"order": self.order, "place": self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.order, self.place = list(state["order"]), state["place"]


def drawn_batches(
    self: TextTask, dataset: Path, split: str, micro_batches: MicroBatches
) -> DrawnLoader:
    from dataclasses import replace

    source = own_batches(self, dataset, split, replace(micro_batches, start_step=0))
    return DrawnLoader([next(source) for _ in range(PASS)])


own_batches = TextTask.batches
TextTask.batches = drawn_batches
runpy.run_path(str(Path(__file__).with_name("rank.py")), run_name="__main__")
