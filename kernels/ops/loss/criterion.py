"""Options of the losses, the check of their arguments, and their reductions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kernels.backend import KernelError
from kernels.launch.layout import expect

Reduction = Literal["mean", "sum", "none"]


@dataclass(frozen=True)
class Criterion:
    """Options of a loss that change its value per token, as in `kernels.cross_entropy`."""

    ignore_index: int = -100
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    softcap: float | None = None


def check_arguments(
    op: str,
    classes: int,
    targets: Tensor,
    shape: Sequence[int],
    class_weight: Tensor | None,
    softcap: float | None,
) -> None:
    """Raise KernelError for arguments of a loss that do not fit its logits (*shape, classes)."""
    if softcap is not None and not softcap > 0:
        raise KernelError(f"{op}: softcap={softcap} must be positive; None leaves the logits alone")
    expect(op, "targets", targets, shape, torch.int64)
    if class_weight is not None:
        expect(op, "class_weight", class_weight, (classes,))
    if targets.numel() and not classes:
        raise KernelError(f"{op}: there are targets but no classes")


def shifted(targets: Tensor, ignore_index: int) -> Tensor:
    """Targets moved one position to the left; the last position is ignored."""
    last = torch.full_like(targets[..., :1], ignore_index)
    return torch.cat((targets[..., 1:], last), -1)


def denominator(targets: Tensor, ignore_index: int, class_weight: Tensor | None) -> Tensor:
    """Divisor of "mean": a scalar on the targets' device, 1 when all are ignored."""
    kept = targets != ignore_index
    if class_weight is None:
        return kept.sum().clamp(min=1)
    # clamp: a target outside the vocabulary must poison the loss, not this gather
    index = targets.where(kept, 0).clamp(0, class_weight.numel() - 1)
    total = class_weight[index].where(kept, 0.0).sum()
    return total.where(kept.any(), torch.ones_like(total))


def reduced(
    losses: Tensor,
    targets: Tensor,
    ignore_index: int,
    class_weight: Tensor | None,
    reduction: Reduction,
) -> Tensor:
    """Per-token losses (...) reduced by `reduction`. Raises KernelError for an unknown one."""
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    if reduction == "mean":
        return losses.sum() / denominator(targets, ignore_index, class_weight)
    raise KernelError(f"reduction={reduction!r} is not known; choose mean, sum or none")
