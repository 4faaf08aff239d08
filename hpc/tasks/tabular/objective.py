"""The objective of each kind of target: its loss, its metrics and its served output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hpc.tasks.metrics import binary_metrics, multiclass_metrics, regression_metrics
from serving.runtime.tabular_transform import Target


class Objective(Protocol):
    """One kind of target."""

    @property
    def outputs(self) -> int:
        """Values that the network gives for a row."""
        ...

    def labels(self, target: np.ndarray) -> np.ndarray:
        """A split's target [rows] as the loss takes it."""
        ...

    def loss(self, output: Tensor, labels: Tensor) -> Tensor:
        """Scalar mean loss of the network's output (B, outputs) in fp32 and labels (B,)."""
        ...

    def served(self, output: Tensor) -> Tensor:
        """The network's output (B, outputs) as it is served, (B, outputs)."""
        ...

    def metrics(self, served: np.ndarray, target: np.ndarray) -> dict[str, float]:
        """Validation metrics of served values [rows, outputs] and a split's target [rows]."""
        ...

    @property
    def atol(self) -> float:
        """Error of a served value that another CPU or batch size may make."""
        ...


@dataclass(frozen=True)
class BinaryObjective:
    """Cross-entropy in nats; the probability of 1 is served."""

    target: Target

    outputs = 1
    atol = 1e-5  # a chance is at most 1: some hundred ulps of fp32

    def labels(self, target: np.ndarray) -> np.ndarray:
        return target

    def loss(self, output: Tensor, labels: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(output.squeeze(1), labels.float())

    def served(self, output: Tensor) -> Tensor:
        return torch.sigmoid(output)

    def metrics(self, served: np.ndarray, target: np.ndarray) -> dict[str, float]:
        return binary_metrics(served[:, 0].astype(np.float64), target.astype(np.float64))


@dataclass(frozen=True)
class MulticlassObjective:
    """Cross-entropy in nats; the probabilities of the classes are served."""

    target: Target

    atol = 1e-5  # a chance is at most 1: some hundred ulps of fp32

    @property
    def outputs(self) -> int:
        assert self.target.classes is not None, "a multi-class target has its classes"
        return len(self.target.classes)

    def labels(self, target: np.ndarray) -> np.ndarray:
        return target.astype(np.int64)

    def loss(self, output: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(output, labels)

    def served(self, output: Tensor) -> Tensor:
        return torch.softmax(output, dim=1)

    def metrics(self, served: np.ndarray, target: np.ndarray) -> dict[str, float]:
        return multiclass_metrics(served.astype(np.float64), target)


@dataclass(frozen=True)
class RegressionObjective:
    """Squared error in variances of the training split; values in the target's unit are served."""

    target: Target

    outputs = 1

    @property
    def atol(self) -> float:
        return 1e-5 * max(self.target.scale, abs(self.target.mean))  # some hundred ulps of a value

    def labels(self, target: np.ndarray) -> np.ndarray:
        return ((target - self.target.mean) / self.target.scale).astype(np.float32)

    def loss(self, output: Tensor, labels: Tensor) -> Tensor:
        return F.mse_loss(output.squeeze(1), labels)

    def served(self, output: Tensor) -> Tensor:
        return output * self.target.scale + self.target.mean

    def metrics(self, served: np.ndarray, target: np.ndarray) -> dict[str, float]:
        return regression_metrics(served[:, 0].astype(np.float64), target.astype(np.float64))


OBJECTIVES: dict[str, Callable[[Target], Objective]] = {
    "binary": BinaryObjective,
    "multiclass": MulticlassObjective,
    "regression": RegressionObjective,
}


def objective_of(target: Target) -> Objective:
    """The objective of a dataset's target. Raises ValueError for an unknown kind."""
    if target.kind not in OBJECTIVES:
        raise ValueError(f"target kind {target.kind!r} is not one of {', '.join(OBJECTIVES)}")
    return OBJECTIVES[target.kind](target)
