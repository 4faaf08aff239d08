"""Row of a student's and of a teacher's logits: their divergence, and its gradient in the student's
place.

With x and y the logits of student and teacher over the temperature τ, log q = x − lse x,
log p = y − lse y, and m = β·p + (1−β)·q:

    forward    L = Σ p (log p − log q)                  dx = q − p
    reverse    L = Σ q (log q − log p)                  dx = q · (log q − log p − L)
    jsd        L = β Σ p (log p − log m) + (1−β) K      dx = (1−β) · q · (log q − log m − K)
               K = Σ q (log q − log m)

and dlogits = g · dx / τ. A class that one of the two gives no chance adds its limit, 0 or infinity.
Bytes, M rows of V logits of e bytes: 3MVe + 5M must move (both read, one written). As issued each
row is read twice, three times for reverse and jsd, after the first time from cache.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.launch.config import launch_config
from kernels.launch.dtypes import accumulator_type
from kernels.launch.layout import vector_length
from kernels.launch.registers import by_vector
from kernels.ops.loss.row import online, settled

Kind = Literal["forward", "reverse", "jsd"]


@dataclass(frozen=True)
class Divergence:
    """One of the formulas above; beta is read by jsd alone."""

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
