"""Direct preference optimisation through an output layer whose logits are never held all at once.

With r = log π(y) − log π_ref(y) of a sequence y, its chosen and its rejected answer:

    z = β (r_chosen − r_rejected),    loss = −(1−ε) log σ(z) − ε log σ(−z)

Rafailov et al., Direct Preference Optimization, arXiv:2305.18290; ε as in conservative DPO
(Mitchell, A note on DPO with noisy preferences, 2023). log π(y) is the sum of its tokens' negative
losses, by `linear_losses_op`, whose backward makes each chunk's logits again: memory and bytes are
those of kernels/ops/loss/linear_losses.py. The reference's are made by `kernels.sequence_log_prob`
without gradients, once, before or beside the training.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.backend import KernelError, wants_triton
from kernels.launch.arguments import (
    check_constants,
    check_device,
    check_dimensions,
    check_number,
    check_tensors,
    expect,
)
from kernels.launch.derivatives import refuse_forward_mode
from kernels.ops.loss.criterion import Criterion, Reduction, check_arguments, shifted
from kernels.ops.loss.linear_crossentropy import linear_cross_entropy_ref
from kernels.ops.loss.linear_losses import linear_losses_op
from kernels.ops.loss.saved_gradients import PLAIN

__all__ = ["linear_dpo", "sequence_log_prob"]


def sequence_log_prob(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    ignore_index: int = -100,
    softcap: float | None = None,
    shift: bool = False,
) -> Tensor:
    """Log-probability (B,) of each row of targets (B, T) under hidden (B, T, N) through the output
    layer weight (V, N), bias (V,), in fp32: the sum over its tokens that are not ignored.

    The arguments are those of `kernels.linear_cross_entropy`. Raises KernelError as it does.
    """
    op, criterion = "sequence_log_prob", Criterion(ignore_index, softcap=softcap)
    check_answers(op, hidden, weight, targets, bias, criterion, shift)
    return _log_prob(op, hidden, weight, targets, bias, criterion, shift)


def linear_dpo(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    reference: Tensor | None,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    bias: Tensor | None = None,
    ignore_index: int = -100,
    softcap: float | None = None,
    shift: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """DPO's loss of hidden (2B, T, N) and targets (2B, T), B chosen answers and then the B rejected
    ones in the same order, through the output layer weight (V, N), bias (V,), in fp32.

    reference: (2B,) `kernels.sequence_log_prob` of the same answers under the reference model, or
    None for none (reference-free). Ignore the targets of the prompts. label_smoothing: the chance
    that a preference is the wrong way round, at most 1/2.
    Raises KernelError for arguments that do not fit.
    """
    op, criterion = "linear_dpo", Criterion(ignore_index, softcap=softcap)
    check_number(op, "beta", beta)
    check_number(op, "label_smoothing", label_smoothing, most=0.5)
    check_answers(op, hidden, weight, targets, bias, criterion, shift)
    check_pairs(op, hidden, reference, reduction)
    log_prob = _log_prob(op, hidden, weight, targets, bias, criterion, shift)
    return preference_loss(log_prob, reference, beta, label_smoothing, reduction)


def check_pairs(op: str, hidden: Tensor, reference: Tensor | None, reduction: str) -> None:
    """Raise KernelError unless hidden (2B, T, N) and reference (2B,) are of pairs of answers."""
    if hidden.shape[0] % 2:
        raise KernelError(
            f"{op}: {hidden.shape[0]} answers are no pairs; pass the chosen ones and then as many "
            "rejected ones"
        )
    if reduction not in ("mean", "sum", "none"):
        raise KernelError(f"{op}: reduction={reduction!r}; choose mean, sum or none")
    if reference is not None:
        check_tensors(op, reference=reference)
        expect(op, "reference", reference, hidden.shape[:1])
        check_constants(op, reference=reference)
        check_device(op, hidden=hidden, reference=reference)


def preference_loss(
    log_prob: Tensor, reference: Tensor | None, beta: float, label_smoothing: float, reduction: str
) -> Tensor:
    """The loss from the log-probabilities (2B,) of chosen and rejected answers; a mean of none is
    0."""
    ratio = log_prob if reference is None else log_prob - reference.to(log_prob.dtype)
    chosen, rejected = ratio.tensor_split(2)
    z = beta * (chosen - rejected)
    losses = -F.logsigmoid(z) * (1 - label_smoothing) - F.logsigmoid(-z) * label_smoothing
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.sum() / max(losses.numel(), 1)


def linear_dpo_ref(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    reference: Tensor | None,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    bias: Tensor | None = None,
    ignore_index: int = -100,
    softcap: float | None = None,
    shift: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """The specification in plain torch: all logits at once."""
    losses = linear_cross_entropy_ref(
        hidden, weight, targets, bias=bias, ignore_index=ignore_index, softcap=softcap, shift=shift,
        reduction="none",
    )  # fmt: skip
    return preference_loss(-losses.sum(-1), reference, beta, label_smoothing, reduction)


def check_answers(
    op: str,
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    criterion: Criterion,
    shift: bool,
) -> None:
    """Raise KernelError unless these are answers (B, T) and an output layer."""
    check_tensors(op, hidden=hidden, weight=weight, bias=bias)
    check_dimensions(op, "hidden", hidden, "B, T, N")
    check_dimensions(op, "weight", weight, "V, N")
    expect(op, "weight", weight, (weight.shape[0], hidden.shape[-1]))
    if bias is not None:
        expect(op, "bias", bias, weight.shape[:1])
    check_arguments(op, weight.shape[0], targets, hidden.shape[:-1], None, criterion, shift, "none")
    check_device(op, hidden=hidden, targets=targets)


def _log_prob(
    op: str,
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    criterion: Criterion,
    shift: bool,
) -> Tensor:
    """`sequence_log_prob` of checked arguments, whose other refusals name `op`."""
    refuse_forward_mode(op, hidden, weight, bias, instead=PLAIN)
    kind = hidden.device.type
    if kind != "meta" and torch.is_autocast_enabled(kind):
        hidden = hidden.to(torch.get_autocast_dtype(kind))
    if shift:
        targets = shifted(targets, criterion.ignore_index)
    losses, *_ = linear_losses_op(
        hidden.reshape(targets.numel(), hidden.shape[-1]), weight.to(hidden.dtype),
        None if bias is None else bias.to(hidden.dtype), targets.reshape(-1), None,
        *criterion.options, on_triton=wants_triton(hidden), statistics=False,
    )  # fmt: skip
    return -losses.view(targets.shape).sum(-1)
