"""Options of the losses, the check of their arguments, and their reductions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kernels.backend import KernelError
from kernels.launch.arguments import check_constants, check_number, expect

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
    criterion: Criterion,
    shift: bool,
    reduction: str,
) -> None:
    """Raise KernelError for arguments of a loss that do not fit its logits (*shape, classes)."""
    check_number(op, "label_smoothing", criterion.label_smoothing, most=1.0)
    check_number(op, "z_loss", criterion.z_loss)
    if criterion.softcap is not None:
        check_number(op, "softcap", criterion.softcap)
        if not criterion.softcap:
            raise KernelError(f"{op}: softcap=0 leaves no logits; None leaves them alone")
    if not isinstance(criterion.ignore_index, int):
        raise KernelError(f"{op}: ignore_index={criterion.ignore_index!r} is not a target")
    if reduction not in ("mean", "sum", "none"):
        raise KernelError(f"{op}: reduction={reduction!r}; choose mean, sum or none")
    if not isinstance(targets, Tensor):
        raise KernelError(f"{op}: targets are {type(targets).__name__}, not a tensor")
    expect(op, "targets", targets, shape, torch.int64)
    if shift and not shape:
        raise KernelError(f"{op}: shift needs a row of targets, and this is a single one")
    if class_weight is not None:
        expect(op, "class_weight", class_weight, (classes,))
        check_constants(op, class_weight=class_weight)
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
    """Per-token losses (...) reduced by `reduction`."""
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    return losses.sum() / denominator(targets, ignore_index, class_weight)
