"""Divergence of a student's distribution from a teacher's, both through output layers whose logits
are never held all at once: the machinery of kernels/ops/loss/linear_kl.py and linear_jsd.py.

A chunk of C tokens holds the logits of both, 2·C·V·e; the student's are overwritten with their
gradient (kernels/ops/loss/divergence_row.py has the formulas). All else is that of
kernels/ops/loss/linear_fused.py: peak memory, the sums of the gradients and the backward.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from kernels.backend import KernelError, wants_triton
from kernels.launch import token_chunks
from kernels.launch.arguments import (
    check_constants,
    check_device,
    check_dimensions,
    check_number,
    check_tensors,
    expect,
)
from kernels.launch.derivatives import refuse_forward_mode, wants_gradient
from kernels.launch.dtypes import statistics_dtype
from kernels.ops.loss.divergence_row import (
    Divergence,
    value_and_gradient,
    value_and_gradient_ref,
)
from kernels.ops.loss.saved_gradients import (
    GradientSums,
    KeptGradients,
    kept_dtype,
    magnification,
    register_scaling,
)

# The largest derivative by a logit over the temperature: at most 1, but that of the reverse KL is
# as large as half the logarithm of a chance that it has lost.
STEEPEST = {"forward": 1.0, "reverse": 16.0, "jsd": 1.0}
# What plain torch has in their place.
PLAIN = "F.linear and F.kl_div in "


def kept_mean(values: Tensor, kept: Tensor | None, reduction: str) -> Tensor:
    """Mean or sum of the values (...) that `kept` keeps."""
    kept = torch.ones_like(values, dtype=torch.bool) if kept is None else kept
    total = values.where(kept, 0.0).sum()
    return total / kept.sum().clamp(min=1) if reduction == "mean" else total


def fused_divergence(
    student: tuple[Tensor, Tensor, Tensor | None],
    teacher: tuple[Tensor, Tensor, Tensor | None],
    kept: Tensor,
    divergence: Divergence,
    mean: bool,
    needs: tuple[bool, bool, bool],
    on_triton: bool,
) -> tuple[Tensor, KeptGradients]:
    """Walk the chunks of both models' (hidden (M, N), weight (V, N), bias); returns the loss and
    those gradients of the student's that `needs` names."""
    hidden, weight, _ = student
    losses = hidden.new_empty(hidden.shape[0], dtype=statistics_dtype(hidden))
    g = torch.ones((), dtype=losses.dtype, device=hidden.device)
    if mean:
        g = g / kept.sum().clamp(min=1)
    magnified = magnification(
        hidden, g * (STEEPEST[divergence.kind] / divergence.temperature), None
    )
    scale, sums = g * magnified, GradientSums(hidden, weight, needs, magnified)
    chunk_loss = value_and_gradient if on_triton else value_and_gradient_ref

    def walk() -> None:  # a function, for the buffers of the logits to end with it
        of_student, of_teacher = (token_chunks.logits(*model) for model in (student, teacher))
        for (part, own), (_, other) in zip(of_student, of_teacher, strict=True):
            chunk_loss(own, other, kept[part], divergence, scale, losses[part])
            sums.add(part, own)

    walk()
    return losses.sum() * g, sums.kept()


def divergence_op(op: str) -> Any:
    """The torch op of `op`, with its autograd; returns (loss, *`KeptGradients`)."""

    def run(
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        teacher: Tensor,
        teacher_weight: Tensor,
        teacher_bias: Tensor | None,
        kept: Tensor,
        kind: str,
        temperature: float,
        beta: float,
        mean: bool,
        need_hidden: bool,
        need_weight: bool,
        need_bias: bool,
        on_triton: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        loss, gradients = fused_divergence(
            (hidden, weight, bias), (teacher, teacher_weight, teacher_bias), kept,
            Divergence(kind, temperature, beta),  # type: ignore[arg-type]
            mean, (need_hidden, need_weight, need_bias), on_triton,
        )  # fmt: skip
        return loss, *gradients

    made = torch.library.custom_op(f"lockgate::{op}", mutates_args=())(run)

    @made.register_fake
    def _(hidden, weight, bias, t, tw, tb, kept, kind, tau, beta, mean, need_h, need_w, need_b, on):
        loss = hidden.new_empty((), dtype=statistics_dtype(hidden))
        needs = need_h, need_w, need_b
        return loss, *KeptGradients.empty(hidden, weight, needs, kept_dtype(hidden))

    register_scaling(made, op, arguments=15, instead=PLAIN)
    return made


def linear_divergence(
    op: str,
    torch_op: Callable[..., tuple[Tensor, ...]],
    student: tuple[Tensor, Tensor, Tensor | None],
    teacher: tuple[Tensor, Tensor, Tensor | None],
    divergence: Divergence,
    kept: Tensor | None,
    reduction: Literal["mean", "sum"],
) -> Tensor:
    """Check the arguments of `op` and run its torch op; student and teacher are (hidden (..., N),
    weight (V, N), bias (V,)), of their own N."""
    hidden = student[0]
    _check(op, student, teacher, divergence, kept, reduction)
    refuse_forward_mode(op, *student, *teacher, instead=PLAIN)
    rows = hidden.shape[:-1].numel()
    kept = hidden.new_ones(rows, dtype=torch.bool) if kept is None else kept.reshape(-1)
    recorded = torch.is_grad_enabled()
    needs = [recorded and x is not None and wants_gradient(x) for x in student]
    return torch_op(
        *_in_one_type(student, rows), *_in_one_type(teacher, rows), kept, divergence.kind,
        divergence.temperature, divergence.beta, reduction == "mean", *needs,
        on_triton=wants_triton(hidden),
    )[0]  # fmt: skip


def _check(op, student, teacher, divergence, kept, reduction) -> None:
    """Raise KernelError for arguments that do not fit."""
    hidden, weight, _ = student
    names = ("hidden", "weight", "bias"), ("teacher", "teacher_weight", "teacher_bias")
    given = dict(zip(names[0] + names[1], (*student, *teacher), strict=True))
    check_tensors(op, **given)
    for model in names:
        rows, layer, shift = (given[name] for name in model)
        check_dimensions(op, model[1], layer, "V, N")
        expect(op, model[1], layer, (weight.shape[0], rows.shape[-1]))
        if shift is not None:
            expect(op, model[2], shift, weight.shape[:1])
    expect(op, "teacher", teacher[0], (*hidden.shape[:-1], teacher[0].shape[-1]))
    check_constants(op, **{name: given[name] for name in names[1]})
    check_number(op, "temperature", divergence.temperature)
    if not divergence.temperature:
        raise KernelError(f"{op}: temperature=0 leaves no distribution; 1 leaves the logits alone")
    check_number(op, "beta", divergence.beta, most=1.0)
    if reduction not in ("mean", "sum"):
        raise KernelError(f"{op}: reduction={reduction!r}; choose mean or sum")
    if kept is not None:
        if not isinstance(kept, Tensor):
            raise KernelError(f"{op}: kept is {type(kept).__name__}, not a tensor")
        expect(op, "kept", kept, hidden.shape[:-1], torch.bool)
        check_device(op, hidden=hidden, kept=kept)
    if not weight.shape[0]:
        raise KernelError(f"{op}: there are no classes")


def _in_one_type(model: tuple[Tensor, Tensor, Tensor | None], rows: int) -> tuple:
    """A model's (hidden (M, N), weight, bias) in the type of its hidden states, or autocast's."""
    hidden, weight, bias = model
    kind = hidden.device.type
    if kind != "meta" and torch.is_autocast_enabled(kind):
        hidden = hidden.to(torch.get_autocast_dtype(kind))
    flat, dtype = hidden.reshape(rows, hidden.shape[-1]), hidden.dtype
    return flat, weight.to(dtype), None if bias is None else bias.to(dtype)
