"""Divergence of a student's distribution from a teacher's, both through output layers whose logits
are never held all at once: the machinery of kernels/ops/loss/linear_kl.py and linear_jsd.py.

With x and y the logits of student and teacher over the temperature τ, log q = x − lse x,
log p = y − lse y, and m = β·p + (1−β)·q:

    forward    L = Σ p (log p − log q)                  dx = q − p
    reverse    L = Σ q (log q − log p)                  dx = q · (log q − log p − L)
    jsd        L = β Σ p (log p − log m) + (1−β) K      dx = (1−β) · q · (log q − log m − K)
               K = Σ q (log q − log m)

and dlogits = g · dx / τ. A class that one of the two gives no chance adds its limit, 0 or infinity.

A chunk of C tokens holds the logits of both, 2·C·V·e; the student's are overwritten with their
gradient. All else is that of kernels/ops/loss/linear_fused.py: so are peak memory and its backward.
Bytes of the row kernel, M rows: 3MVe + 5M must move (both read, one written). As issued each row is
read twice, three times for reverse and jsd, after the first time from cache.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import triton
import triton.language as tl
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
from kernels.launch.config import launch_config
from kernels.launch.derivatives import refuse_forward_mode, wants_gradient
from kernels.launch.dtypes import accumulator_type, statistics_dtype
from kernels.launch.layout import vector_length
from kernels.launch.registers import by_vector
from kernels.ops.loss.row import online, settled
from kernels.ops.loss.saved_gradients import (
    GradientSums,
    KeptGradients,
    kept_dtype,
    magnification,
    register_scaling,
)

Kind = Literal["forward", "reverse", "jsd"]
# What plain torch has in their place.
PLAIN = "F.linear and F.kl_div in "


@dataclass(frozen=True)
class Divergence:
    """Which of the formulas above; beta is read by jsd alone."""

    kind: Kind
    temperature: float = 1.0
    beta: float = 0.5


@triton.jit
def _log_chances(LOGITS, cols, n, kept, scale, lse, ACC: tl.constexpr, VEC: tl.constexpr):
    """log softmax of a tile, −inf past the end of the row."""
    mask = (cols // VEC * VEC < n) & kept
    x = tl.load(LOGITS + cols, mask, other=0.0).to(ACC) * scale
    return tl.where(cols < n, x - lse, -float("inf"))


@triton.jit
def _times(chance, log_ratio):
    """chance · log_ratio, 0 where the chance is: 0 · inf is none."""
    return tl.where(chance > 0, chance * log_ratio, 0.0)


@triton.jit(do_not_specialize=["n"])
def divergence_kernel(
    STUDENT,  # (m, stride): read, then overwritten with their gradient
    TEACHER,  # (m, stride_t)
    KEPT,  # (m,) uint8: 0 for a token that does not count
    G,  # (): the gradient of every loss
    LOSSES,  # (m,)
    stride,  # of our own buffers: multiples of 64, so that n may be odd
    stride_t,
    n,
    scale,  # 1 / temperature
    beta,
    KIND: tl.constexpr,
    ACC: tl.constexpr,
    VEC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A row of each, in tiles: lse of both; the divergence, for whose gradient it is needed first;
    the gradient, and the divergence of the others on the way."""
    row = tl.program_id(0).to(tl.int64)
    kept = tl.load(KEPT + row) != 0
    STUDENT += row * stride
    TEACHER += row * stride_t
    lanes = tl.zeros((BLOCK // VEC,), ACC)
    tile = tl.arange(0, BLOCK)
    top_x, total_x = lanes - float("inf"), lanes
    top_y, total_y = lanes - float("inf"), lanes
    for start in range(0, n, BLOCK):
        x = _log_chances(STUDENT, start + tile, n, kept, scale, 0.0, ACC, VEC)
        y = _log_chances(TEACHER, start + tile, n, kept, scale, 0.0, ACC, VEC)
        top_x, total_x = online(by_vector(x, VEC), top_x, total_x)
        top_y, total_y = online(by_vector(y, VEC), top_y, total_y)
    base, total = settled(top_x, total_x)
    lse_x = base + tl.log(total)
    base, total = settled(top_y, total_y)
    lse_y = base + tl.log(total)
    of_q, of_p = lanes, lanes
    if KIND != "forward":
        for start in range(0, n, BLOCK):
            log_q = _log_chances(STUDENT, start + tile, n, kept, scale, lse_x, ACC, VEC)
            log_p = _log_chances(TEACHER, start + tile, n, kept, scale, lse_y, ACC, VEC)
            q, p = tl.exp(log_q), tl.exp(log_p)
            other = log_p
            if KIND == "jsd":
                other = tl.log(beta * p + (1 - beta) * q)
                of_p += tl.sum(by_vector(_times(p, log_p - other), VEC), 1)
            of_q += tl.sum(by_vector(_times(q, log_q - other), VEC), 1)
    mean_q = tl.sum(of_q, 0)
    g = tl.where(kept, tl.load(G).to(ACC) * scale, 0.0)
    # every warp has read what another one may overwrite below
    tl.debug_barrier()
    for start in range(0, n, BLOCK):
        cols = start + tile
        log_q = _log_chances(STUDENT, cols, n, kept, scale, lse_x, ACC, VEC)
        log_p = _log_chances(TEACHER, cols, n, kept, scale, lse_y, ACC, VEC)
        q, p = tl.exp(log_q), tl.exp(log_p)
        if KIND == "forward":
            of_p += tl.sum(by_vector(_times(p, log_p - log_q), VEC), 1)
            d = q - p
        elif KIND == "reverse":
            d = _times(q, log_q - log_p - mean_q)
        else:
            d = _times((1 - beta) * q, log_q - tl.log(beta * p + (1 - beta) * q) - mean_q)
        d = tl.where(kept, g * d, 0.0)
        tl.store(STUDENT + cols, d.to(STUDENT.dtype.element_ty), cols // VEC * VEC < n)
    if KIND == "forward":
        loss = tl.sum(of_p, 0)
    elif KIND == "reverse":
        loss = mean_q
    else:
        loss = beta * tl.sum(of_p, 0) + (1 - beta) * mean_q
    tl.store(LOSSES + row, tl.where(kept, loss, 0.0))


def value_and_gradient(
    student: Tensor,
    teacher: Tensor,
    kept: Tensor,
    divergence: Divergence,
    g: Tensor,
    losses: Tensor,
) -> None:
    """One chunk: `losses` (C,) from the logits of student and teacher (C, V), both of
    `token_chunks.buffer`; the student's are overwritten with g·dlogits. kept (C,) bool, g ()."""
    rows, n = student.shape
    cfg = launch_config("linear_divergence", student, n)
    divergence_kernel[(rows,)](
        STUDENT=student, TEACHER=teacher, KEPT=kept.view(torch.uint8), G=g, LOSSES=losses,
        stride=student.stride(0), stride_t=teacher.stride(0), n=n,
        scale=1 / divergence.temperature, beta=divergence.beta, KIND=divergence.kind,
        ACC=accumulator_type(student), VEC=vector_length(student), BLOCK=cfg.block, **cfg.options,
    )  # fmt: skip


def value_and_gradient_ref(
    student: Tensor,
    teacher: Tensor,
    kept: Tensor,
    divergence: Divergence,
    g: Tensor,
    losses: Tensor,
) -> None:
    """The same in torch ops, for CPU training."""
    log_q, log_p = (
        torch.log_softmax(x.to(losses.dtype) / divergence.temperature, 1)
        for x in (student, teacher)
    )
    q, p, beta = log_q.exp(), log_p.exp(), divergence.beta
    if divergence.kind == "forward":
        value, d = _weighted(p, log_p - log_q).sum(1), q - p
    elif divergence.kind == "reverse":
        terms = _weighted(q, log_q - log_p)
        value = terms.sum(1)
        d = terms - q * value.unsqueeze(1)
    else:
        log_m = torch.log(beta * p + (1 - beta) * q)
        terms = _weighted(q, log_q - log_m)
        own = terms.sum(1)
        value = beta * _weighted(p, log_p - log_m).sum(1) + (1 - beta) * own
        d = (1 - beta) * (terms - q * own.unsqueeze(1))
    losses.copy_(value.where(kept, 0.0))
    scaled = d * (g / divergence.temperature)
    student.copy_(scaled.where(kept.unsqueeze(1), 0.0))


def _weighted(chance: Tensor, log_ratio: Tensor) -> Tensor:
    """chance · log_ratio, 0 where the chance is."""
    return (chance * log_ratio).where(chance > 0, 0.0)


def divergence_ref(student: Tensor, teacher: Tensor, divergence: Divergence) -> Tensor:
    """The specification in plain torch: divergences (...) between logits (..., V)."""
    log_q, log_p = (
        torch.log_softmax(x.to(torch.promote_types(x.dtype, torch.float32)), -1)
        for x in (student / divergence.temperature, teacher / divergence.temperature)
    )
    if divergence.kind == "forward":
        return _weighted(log_p.exp(), log_p - log_q).sum(-1)
    if divergence.kind == "reverse":
        return _weighted(log_q.exp(), log_q - log_p).sum(-1)
    p, q, beta = log_p.exp(), log_q.exp(), divergence.beta
    log_m = torch.log(beta * p + (1 - beta) * q)
    of_p, of_q = _weighted(p, log_p - log_m).sum(-1), _weighted(q, log_q - log_m).sum(-1)
    return beta * of_p + (1 - beta) * of_q


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
    magnified = magnification(hidden, g, None)
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
        divergence.temperature, divergence.beta, reduction == "mean", *needs, wants_triton(hidden),
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
