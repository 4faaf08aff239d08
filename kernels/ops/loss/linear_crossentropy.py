"""Linear layer + cross entropy without ever holding all logits: loss(h · Wᵀ, targets).

The logits of a chunk of tokens at a time are made, used and dropped, as in Wijmans et al., Cut Your
Losses in Large-Vocabulary Language Models, arXiv:2411.09009, with the products left to torch. By
reduction and group: kernels/ops/loss/linear_fused.py ("mean", "sum"), linear_losses.py ("none"),
vocab_parallel.py (a vocabulary split over ranks). Formulas: kernels/ops/loss/crossentropy.py.
"""

from typing import Any, Literal, Unpack, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kernels
from kernels.backend import KernelError, wants_triton
from kernels.launch.arguments import check_device, check_dimensions, check_tensors, expect
from kernels.launch.derivatives import refuse_forward_mode, wants_gradient
from kernels.launch.dtypes import statistics_dtype
from kernels.ops.loss.criterion import (
    Criterion,
    LossOptions,
    LossStatistics,
    Reduction,
    check_arguments,
    reduced,
    shifted,
)
from kernels.ops.loss.crossentropy import cross_entropy_ref
from kernels.ops.loss.linear_fused import linear_cross_entropy_op
from kernels.ops.loss.linear_losses import linear_losses_op
from kernels.ops.loss.saved_gradients import PLAIN
from kernels.ops.loss.vocab_parallel import vocab_parallel_op

__all__ = ["LinearCrossEntropy", "linear_cross_entropy"]


class LinearOptions(LossOptions, total=False):
    """Keywords of `kernels.linear_cross_entropy`."""

    bias: Tensor | None
    group: "torch.distributed.ProcessGroup | None"


@overload
def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    statistics: Literal[False] = False,
    **options: Unpack[LinearOptions],
) -> Tensor: ...


@overload
def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    statistics: Literal[True],
    **options: Unpack[LinearOptions],
) -> LossStatistics: ...


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    class_weight: Tensor | None = None,
    shift: bool = False,
    reduction: Reduction = "mean",
    group: "torch.distributed.ProcessGroup | None" = None,
    statistics: bool = False,
) -> Tensor | LossStatistics:
    """Cross entropy of hidden (..., N) through the output layer weight (V, N), bias (V,), in fp32.

    targets: (...). Under autocast all factors are cast as F.linear would cast them. With `group`
    the vocabulary is split over its ranks in order, `weight` and `bias` are this rank's rows,
    hidden and targets are the same on all of them, and so are the loss and hidden's gradient. The
    other arguments are those of `kernels.cross_entropy`. A row whose target is ignored has no
    gradient, whatever it holds; a NaN in it still reaches that column of the weight's, through
    0 · NaN. statistics: return a `LossStatistics`, the same on all ranks; with a group a chunk's
    logits are read once more for it.
    Raises KernelError for arguments that do not fit, and for "none" with a group.
    """
    op = "linear_cross_entropy"
    check_tensors(op, hidden=hidden, weight=weight, bias=bias, class_weight=class_weight)
    check_dimensions(op, "weight", weight, "V, N")
    expect(op, "weight", weight, (weight.shape[0], hidden.shape[-1]))
    if bias is not None:
        expect(op, "bias", bias, weight.shape[:1])
    if group is not None and not isinstance(group, torch.distributed.ProcessGroup):
        raise KernelError(f"{op}: group is {type(group).__name__}, not a process group")
    shards = 1 if group is None else group.size()
    check_arguments(
        op, shards * weight.shape[0], targets, hidden.shape[:-1], class_weight,
        Criterion(ignore_index, label_smoothing, z_loss, softcap), shift, reduction,
    )  # fmt: skip
    check_device(op, hidden=hidden, targets=targets)
    refuse_forward_mode(op, hidden, weight, bias, class_weight, instead=PLAIN)
    kind = hidden.device.type
    if kind != "meta" and torch.is_autocast_enabled(kind):
        hidden = hidden.to(torch.get_autocast_dtype(kind))
    weight = weight.to(hidden.dtype)
    if bias is not None:
        bias = bias.to(hidden.dtype)
    if class_weight is not None:
        class_weight = class_weight.to(statistics_dtype(hidden))
    if shift:
        targets = shifted(targets, ignore_index)
    rows, flat = hidden.reshape(targets.numel(), hidden.shape[-1]), targets.reshape(-1)
    model, options = (rows, weight, bias, flat), (ignore_index, label_smoothing, z_loss, softcap)
    needs = (
        wants_gradient(hidden), wants_gradient(weight), bias is not None and wants_gradient(bias)
    )  # fmt: skip
    on_triton, recorded = wants_triton(hidden), torch.is_grad_enabled()
    if group is not None:
        if reduction not in ("mean", "sum"):
            raise KernelError("linear_cross_entropy: a split vocabulary needs a mean or a sum")
        wanted = [needed and recorded for needed in needs]
        loss, *_, lse, correct = vocab_parallel_op(
            *model, class_weight, *options, reduction == "mean", *wanted, on_triton=on_triton,
            statistics=statistics, group_name=group.group_name,
        )  # fmt: skip
    elif recorded and reduction in ("mean", "sum") and any(needs):
        loss, *_, lse, correct = linear_cross_entropy_op(
            *model, class_weight, *options, reduction == "mean", *needs, on_triton=on_triton,
            statistics=statistics,
        )  # fmt: skip
    elif on_triton or not recorded:
        losses, lse, correct = linear_losses_op(
            *model, class_weight, *options, on_triton=on_triton, statistics=statistics
        )
        losses = losses.view(targets.shape)
        loss = reduced(losses, targets, ignore_index, class_weight, reduction)
    else:
        return linear_cross_entropy_ref(
            hidden, weight, targets, bias=bias, ignore_index=ignore_index,
            label_smoothing=label_smoothing, z_loss=z_loss, softcap=softcap,
            class_weight=class_weight, reduction=reduction, statistics=statistics,
        )  # fmt: skip
    if not statistics:
        return loss
    return LossStatistics(loss, lse.view(targets.shape), correct.view(targets.shape))


def linear_cross_entropy_ref(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    class_weight: Tensor | None = None,
    shift: bool = False,
    reduction: Reduction = "mean",
    statistics: bool = False,
) -> Any:
    """The specification in plain torch: all logits at once."""
    return cross_entropy_ref(
        F.linear(hidden, weight, bias), targets, ignore_index=ignore_index,
        label_smoothing=label_smoothing, z_loss=z_loss, softcap=softcap,
        class_weight=class_weight, shift=shift, reduction=reduction, statistics=statistics,
    )  # fmt: skip


class LinearCrossEntropy(nn.Module):
    """An output layer that returns the loss; it owns its weight, so ZeRO-3 gathers it in time."""

    def __init__(
        self,
        hidden_size: int,
        vocabulary: int,
        *,
        bias: bool = False,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(vocabulary, dtype=dtype)) if bias else None
        self.weight = nn.Parameter(torch.empty(vocabulary, hidden_size, dtype=dtype))
        nn.init.normal_(self.weight, std=hidden_size**-0.5)

    def forward(self, hidden: Tensor, targets: Tensor, **options) -> Tensor | LossStatistics:
        """hidden (..., N), targets (...); options as in `kernels.linear_cross_entropy`."""
        return kernels.linear_cross_entropy(hidden, self.weight, targets, bias=self.bias, **options)
