"""Cross entropy over a vocabulary, with what language models add to it.

With x = softcap · tanh(logits / softcap) (or the logits), lse = log Σ exp x, class weights ω:
loss = (1−ε) ω_t (lse − x_t) + ε/V Σ_c ω_c (lse − x_c) + z · lse²
"""

from typing import Literal

import torch
from torch import Tensor

from kernels.backend import KernelError

Reduction = Literal["mean", "sum", "none"]


def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    class_weight: Tensor | None = None,
    shift: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross entropy of `logits` (..., V) against `targets` (...), in fp32 whatever the logits are.

    shift: position i predicts the target of position i+1 along the last dimension of targets; the
    last position predicts nothing. "mean" divides by the sum of the targets' class weights (their
    number without class_weight) and is 0, not NaN, when every target is ignored.
    """
    return cross_entropy_ref(
        logits, targets, ignore_index=ignore_index, label_smoothing=label_smoothing,
        z_loss=z_loss, softcap=softcap, class_weight=class_weight, shift=shift,
        reduction=reduction,
    )


def cross_entropy_ref(
    logits: Tensor,
    targets: Tensor,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    class_weight: Tensor | None = None,
    shift: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """The specification in plain torch."""
    if shift:
        targets = shifted(targets, ignore_index)
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if softcap is not None:
        wide = softcap * torch.tanh(wide / softcap)
    lse = wide.logsumexp(-1)
    kept = targets != ignore_index
    index = targets.where(kept, 0)
    losses = lse - wide.gather(-1, index.unsqueeze(-1)).squeeze(-1)
    if class_weight is not None:
        losses = losses * class_weight[index]
    if label_smoothing:
        apart = lse.unsqueeze(-1) - wide
        spread = apart if class_weight is None else apart * class_weight
        losses = (1 - label_smoothing) * losses + label_smoothing * spread.mean(-1)
    if z_loss:
        losses = losses + z_loss * lse.square()
    losses = losses.where(kept, 0.0)
    return reduced(losses, targets, ignore_index, class_weight, reduction)


def shifted(targets: Tensor, ignore_index: int) -> Tensor:
    """Targets moved one position to the left; the last position is ignored."""
    last = torch.full_like(targets[..., :1], ignore_index)
    return torch.cat((targets[..., 1:], last), -1)


def denominator(targets: Tensor, ignore_index: int, class_weight: Tensor | None) -> Tensor:
    """What "mean" divides by: a scalar on the targets' device, 1 when all are ignored."""
    kept = targets != ignore_index
    if class_weight is None:
        return kept.sum().clamp(min=1)
    total = class_weight[targets.where(kept, 0)].where(kept, 0.0).sum()
    return total.where(kept.any(), torch.ones_like(total))


def reduced(
    losses: Tensor,
    targets: Tensor,
    ignore_index: int,
    class_weight: Tensor | None,
    reduction: Reduction,
) -> Tensor:
    """Per-token losses (...) to what was asked for. Raises KernelError for an unknown reduction."""
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    if reduction == "mean":
        return losses.sum() / denominator(targets, ignore_index, class_weight)
    raise KernelError(f"reduction={reduction!r} is not known; choose mean, sum or none")
