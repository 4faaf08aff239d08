"""Kullback-Leibler divergence of a student from a teacher through their output layers, for
distillation. Hinton et al., Distilling the Knowledge in a Neural Network, arXiv:1503.02531; the
reverse direction: Gu et al., MiniLLM, arXiv:2306.08543. Formulas and bytes:
kernels/ops/loss/divergence_row.py; memory: divergence.py.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from kernels.ops.loss.divergence import divergence_op, kept_mean, linear_divergence
from kernels.ops.loss.divergence_row import Divergence, divergence_ref

__all__ = ["linear_kl"]

linear_kl_op = divergence_op("linear_kl")


def linear_kl(
    hidden: Tensor,
    weight: Tensor,
    teacher: Tensor,
    teacher_weight: Tensor,
    *,
    bias: Tensor | None = None,
    teacher_bias: Tensor | None = None,
    kept: Tensor | None = None,
    reverse: bool = False,
    temperature: float = 1.0,
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """KL(teacher ‖ student) of hidden (..., N) through weight (V, N) from teacher (..., N') through
    teacher_weight (V, N'), in fp32; KL(student ‖ teacher) with `reverse`.

    temperature: divides the logits of both. Hinton's loss is temperature² times this one. kept:
    (...) bool, the tokens that count, all by default; "mean" divides by their number and is 0
    without any. The teacher has no gradient. Raises KernelError for arguments that do not fit, and
    for a teacher that requires a gradient.
    """
    return linear_divergence(
        "linear_kl", linear_kl_op, (hidden, weight, bias), (teacher, teacher_weight, teacher_bias),
        Divergence("reverse" if reverse else "forward", temperature), kept, reduction,
    )  # fmt: skip


def linear_kl_ref(
    hidden: Tensor,
    weight: Tensor,
    teacher: Tensor,
    teacher_weight: Tensor,
    *,
    bias: Tensor | None = None,
    teacher_bias: Tensor | None = None,
    kept: Tensor | None = None,
    reverse: bool = False,
    temperature: float = 1.0,
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """The specification in plain torch: all logits at once."""
    student, other = F.linear(hidden, weight, bias), F.linear(teacher, teacher_weight, teacher_bias)
    kind = Divergence("reverse" if reverse else "forward", temperature)
    return kept_mean(divergence_ref(student, other, kind), kept, reduction)
