"""A tabular split as model arrays, batches of it, and a model's metrics on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hpc.tasks.micro_batches import MicroBatches, batch_rows
from hpc.tasks.tabular.objective import objective_of
from serving.artifact.splits import read_examples
from serving.runtime.tabular_transform import TabularTransform, load_transform

BATCH = 8192  # rows of one forward pass in evaluation


@dataclass(frozen=True)
class Table:
    """One split in memory: categories int64 (rows, C), numbers fp32 (rows, N), target (rows,)."""

    transform: TabularTransform
    categories: np.ndarray
    numbers: np.ndarray
    target: np.ndarray


def read_table(dataset: Path, split: str) -> Table:
    """Read a split through the dataset's frozen transform."""
    transform = load_transform(Path(dataset) / "transform.json")
    examples = read_examples(dataset, split)
    arrays = transform.encode(examples.inputs)
    return Table(transform, arrays["categories"], arrays["numbers"], examples.target)


def batches(dataset: Path, split: str, micro_batches: MicroBatches) -> Iterator[dict[str, Tensor]]:
    """See `hpc.tasks.task.Task.batches`."""
    table = read_table(dataset, split)
    labels = objective_of(table.transform.target).labels(table.target)
    for rows in batch_rows(len(labels), micro_batches):
        yield {
            "categories": torch.from_numpy(table.categories[rows]),
            "numbers": torch.from_numpy(table.numbers[rows]),
            "target": torch.from_numpy(labels[rows]),
        }


def evaluate(model: nn.Module, dataset: Path) -> dict[str, float]:
    """Metrics of the target's kind on the validation split."""
    table = read_table(dataset, "validation")
    served = served_values(model, table)
    return objective_of(table.transform.target).metrics(served, table.target)


def served_values(model: nn.Module, table: Table) -> np.ndarray:
    """fp32 (rows, outputs): what the model would serve for each row of `table`."""
    objective = objective_of(table.transform.target)
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    parts = []
    with torch.no_grad():
        for start in range(0, len(table.target), BATCH):
            rows = slice(start, start + BATCH)
            output = model(
                torch.from_numpy(table.categories[rows]).to(device),
                torch.from_numpy(table.numbers[rows]).to(device),
            )
            parts.append(objective.served(output.float()).cpu().numpy())
    model.train(was_training)
    return np.concatenate(parts)
