"""The arrays of a split, batches of them, and a model's loss and metrics on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hpc.tasks.dataset import read_transform
from hpc.tasks.metrics import BY_NAME
from hpc.tasks.micro_batches import MicroBatches, batch_rows
from hpc.tasks.module.task import INPUT, KIND, TARGET, ModuleTask

BATCH = 256  # rows of one forward pass in evaluation


@dataclass(frozen=True)
class Arrays:
    """One split, memory-mapped: inputs and targets by name, each [rows, ...], in their order."""

    inputs: dict[str, np.ndarray]
    targets: dict[str, np.ndarray]

    @property
    def rows(self) -> int:
        return len(next(iter(self.inputs.values())))

    def batch(self, rows: Any) -> dict[str, Tensor]:
        """The tensors of `rows`, `input.NAME` and `target.NAME`, copied."""
        inputs = {f"{INPUT}{name}": _tensor(array[rows]) for name, array in self.inputs.items()}
        targets = {f"{TARGET}{name}": _tensor(array[rows]) for name, array in self.targets.items()}
        return {**inputs, **targets}


def read_arrays(dataset: Path, split: str) -> Arrays:
    """Map a split of an array dataset."""
    transform = read_transform(dataset, KIND, ModuleTask.__name__)

    def mapped(role: str) -> dict[str, np.ndarray]:
        names = [one["name"] for one in transform[role]]
        folder = Path(dataset) / split
        return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}

    return Arrays(mapped("inputs"), mapped("targets"))


def batches(dataset: Path, split: str, micro_batches: MicroBatches) -> Iterator[dict[str, Tensor]]:
    """See `hpc.tasks.task.Task.batches`."""
    arrays = read_arrays(dataset, split)
    for rows in batch_rows(arrays.rows, micro_batches):
        yield arrays.batch(rows)


def parts(batch: dict[str, Tensor], prefix: str) -> list[Tensor]:
    """The batch's tensors whose name begins with `prefix`, in the dataset's order."""
    return [tensor for name, tensor in batch.items() if name.startswith(prefix)]


def model_outputs(model: Any, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Every output of `model`, (B, ...) each, floating point in fp32.

    Floating-point inputs come in the dtype that the model computes in, which bf16 training changes.
    """
    computes = next((one.dtype for one in model.parameters() if one.is_floating_point()), None)
    found = model(*(one.to(computes) if one.is_floating_point() else one for one in inputs))
    outputs = [found] if isinstance(found, Tensor) else list(found)
    return [one.float() if one.is_floating_point() else one for one in outputs]


def evaluate(task: ModuleTask, model: nn.Module, dataset: Path) -> dict[str, float]:
    """`loss` on the validation split, and each of the task's metrics of the first output."""
    arrays = read_arrays(dataset, "validation")
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    losses, outputs = [], []
    with torch.no_grad():
        for start in range(0, arrays.rows, BATCH):
            batch = arrays.batch(slice(start, start + BATCH))
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            losses.append(float(task.loss(model, batch)) * task.unit_count(batch))
            outputs.append(model_outputs(model, parts(batch, INPUT))[0].cpu().numpy())
    model.train(was_training)
    found = {"loss": sum(losses) / arrays.rows}
    if task.metrics:
        output, target = np.concatenate(outputs), np.asarray(next(iter(arrays.targets.values())))
        found |= {name: BY_NAME[name](output, target) for name in task.metrics}
    return found


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array))  # a copy: what is mapped cannot be written to
