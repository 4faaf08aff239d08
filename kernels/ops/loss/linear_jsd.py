"""Generalised Jensen-Shannon divergence of a student and a teacher through their output layers.
Agarwal et al., On-Policy Distillation of Language Models (GKD), arXiv:2306.13649, with its two ends
as TRL and Liger-Kernel have them. Formulas and bytes: kernels/ops/loss/divergence_row.py.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from kernels.ops.loss.divergence import divergence_op, kept_mean, linear_divergence
from kernels.ops.loss.divergence_row import Divergence, Kind, divergence_ref

__all__ = ["linear_jsd"]

linear_jsd_op = divergence_op("linear_jsd")


def linear_jsd(
    hidden: Tensor,
    weight: Tensor,
    teacher: Tensor,
    teacher_weight: Tensor,
    *,
    bias: Tensor | None = None,
    teacher_bias: Tensor | None = None,
    kept: Tensor | None = None,
    beta: float = 0.5,
    temperature: float = 1.0,
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """beta · KL(teacher ‖ m) + (1 − beta) · KL(student ‖ m), m = beta · teacher + (1 − beta) ·
    student, in fp32. At beta = 0, where that is 0, it is KL(teacher ‖ student); at beta = 1
    KL(student ‖ teacher).

    The other arguments are those of `kernels.linear_kl`. Raises KernelError as it does.
    """
    return linear_divergence(
        "linear_jsd", linear_jsd_op, (hidden, weight, bias),
        (teacher, teacher_weight, teacher_bias), Divergence(kind_of(beta), temperature, beta), kept,
        reduction,
    )  # fmt: skip


def kind_of(beta: float) -> Kind:
    """The formula for `beta`."""
    ends: dict[float, Kind] = {0.0: "forward", 1.0: "reverse"}
    return ends.get(beta, "jsd")


def linear_jsd_ref(
    hidden: Tensor,
    weight: Tensor,
    teacher: Tensor,
    teacher_weight: Tensor,
    *,
    bias: Tensor | None = None,
    teacher_bias: Tensor | None = None,
    kept: Tensor | None = None,
    beta: float = 0.5,
    temperature: float = 1.0,
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """The specification in plain torch: all logits at once."""
    student, other = F.linear(hidden, weight, bias), F.linear(teacher, teacher_weight, teacher_bias)
    values = divergence_ref(student, other, Divergence(kind_of(beta), temperature, beta))
    return kept_mean(values, kept, reduction)
