"""Linear layer + cross entropy without ever holding all logits: loss(hidden · weightᵀ, targets)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.crossentropy import Reduction, cross_entropy_ref


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
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
    """Cross entropy of hidden (..., N) through the output layer weight (V, N), in fp32.

    The other arguments are those of `kernels.cross_entropy`.
    """
    return linear_cross_entropy_ref(
        hidden, weight, targets, ignore_index=ignore_index, label_smoothing=label_smoothing,
        z_loss=z_loss, softcap=softcap, class_weight=class_weight, shift=shift,
        reduction=reduction,
    )


def linear_cross_entropy_ref(
    hidden: Tensor,
    weight: Tensor,
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
    """The specification in plain torch: all logits at once."""
    return cross_entropy_ref(
        F.linear(hidden, weight.to(hidden.dtype)), targets, ignore_index=ignore_index,
        label_smoothing=label_smoothing, z_loss=z_loss, softcap=softcap,
        class_weight=class_weight, shift=shift, reduction=reduction,
    )


class LinearCrossEntropy(nn.Module):
    """An output layer that returns the loss; it owns its weight, so ZeRO-3 gathers it in time."""

    def __init__(self, hidden_size: int, vocabulary: int, *, dtype: torch.dtype | None = None):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocabulary, hidden_size, dtype=dtype))
        nn.init.normal_(self.weight, std=hidden_size**-0.5)

    def forward(self, hidden: Tensor, targets: Tensor, **options) -> Tensor:
        """hidden (..., N), targets (...); options as in `kernels.linear_cross_entropy`."""
        return linear_cross_entropy(hidden, self.weight, targets, **options)
