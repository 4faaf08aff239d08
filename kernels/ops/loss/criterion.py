"""Options of the losses, the check of their arguments, and their reductions."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal, NamedTuple, TypedDict

import torch
from torch import Tensor

from kernels.backend import KernelError
from kernels.launch.arguments import check_constants, check_number, expect

Reduction = Literal["mean", "sum", "none"]


class LossOptions(TypedDict, total=False):
    """Keywords of `kernels.cross_entropy`."""

    ignore_index: int
    label_smoothing: float
    z_loss: float
    softcap: float | None
    class_weight: Tensor | None
    shift: bool
    reduction: Reduction


class LossStatistics(NamedTuple):
    """A loss and what its kernel finds on the way, for curves: constants, without a gradient.

    loss: as without statistics. lse: (...), log Σ exp of the logits after a softcap, 0 where the
    target is ignored; the z-loss is z·lse². correct: (...) bool, where the target is the argmax of
    the logits, which takes the first of several; False where it is ignored, beside a NaN and in a
    row of -inf alone.
    Accuracy is correct.sum() over the number of targets that are not ignored.
    """

    loss: Tensor
    lse: Tensor
    correct: Tensor


@dataclass(frozen=True)
class Criterion:
    """Options of a loss that change its value per token, as in `kernels.cross_entropy`."""

    ignore_index: int = -100
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    softcap: float | None = None

    @property
    def options(self) -> tuple[int, float, float, float | None]:
        """In the order that a torch op takes them, which has no argument of this type."""
        return self.ignore_index, self.label_smoothing, self.z_loss, self.softcap


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


def is_top(logits: Tensor, targets: Tensor, kept: Tensor) -> Tensor:
    """`LossStatistics.correct` (...) of logits (..., V)."""
    if not logits.shape[-1]:
        return torch.zeros_like(kept)
    largest, place = logits.detach().max(-1)
    return kept & (place == targets) & (largest > -inf)


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
