"""Every operator three ways, as the kernel, as torch's own bf16 code and as the fp64 specification,
with the bound on what may lie between their errors.

A kernel sums in fp32 and rounds once, so its result is the bf16 number nearest to a sum that is
within d of the exact value e. When that is another number than the one nearest to e, a midpoint
lies within d of e, and the result is at most 2d farther from e than the nearest bf16 number; no
bf16 number, torch's neither, is nearer than that. Hence for every single element

    |ours − e| <= |torch's − e| + 2d,        d = 2^-24 · (roundings in fp32) · (Σ |terms| of e)

and what holds for every element holds for the rms. `terms` are the formulas of the kernel's
docstring with a + for every − and absolute values; a sum of n by halves makes about log2 n
roundings of each term, and the handful of other operations some more.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

import kernels
from kernels.analysis.interpreter import Meter
from kernels.ops.addnorm import add_rms_norm_ref
from kernels.ops.gated import geglu_ref, swiglu_ref
from kernels.ops.loss.crossentropy import cross_entropy_ref, shifted
from kernels.ops.rmsnorm import rms_norm_ref
from kernels.ops.rotary import rope_ref

EPS = 1e-6
TINY = 2.0**-120  # near the end of the exponent, where terms may be flushed to 0


def bf16(*shape: int, scale: float = 1.0) -> Tensor:
    return (torch.randn(shape) * scale).bfloat16()


def contiguous(*shape: int, **scale) -> Tensor:
    return bf16(*shape, **scale)


def sliced(*shape: int, **scale) -> Tensor:
    """Rows begin anywhere: their distance is odd where their length is even."""
    return bf16(*shape[:-1], shape[-1] + 5, **scale)[..., 2 : shape[-1] + 2]


def every_other(*shape: int, **scale) -> Tensor:
    return bf16(*shape[:-2], 2 * shape[-2], shape[-1], **scale)[..., ::2, :]


def transposed(*shape: int, **scale) -> Tensor:
    return bf16(*shape[:-2], shape[-1], shape[-2], **scale).transpose(-1, -2)


def expanded(*shape: int, **scale) -> Tensor:
    return bf16(1, *shape[1:], **scale).expand(shape)


def unaligned(*shape: int, **scale) -> Tensor:
    """Begins one element after a 128-bit boundary."""
    return bf16(math.prod(shape) + 1, **scale)[1:].view(shape)


LAYOUTS = [contiguous, sliced, every_other, transposed, expanded, unaligned]


@dataclass
class Case:
    """One operator on one set of inputs.

    ours, torchs, spec: functions of the inputs. terms: called with inputs and upstream gradients in
    fp64, gives Σ|terms| of every output and gradient. stored: the specification with those
    intermediates rounded that every implementation stores in bf16, where there are any; the bound
    is against that one. length: of the longest sum. rounded: Σ|terms| of what is summed after it
    was itself rounded to bf16, by place of the result.
    """

    ours: Callable
    torchs: Callable
    spec: Callable
    inputs: list[Tensor]
    terms: Callable
    stored: Callable | None = None
    length: int = 1
    rounded: dict[int, Callable] = field(default_factory=dict)


def results(function: Callable, inputs: list[Tensor], douts: list[Tensor]) -> list[Tensor]:
    """Outputs of `function` and the gradients of `inputs`."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    out = function(*leaves)
    outs = out if isinstance(out, tuple) else (out,)
    pulled = [d.to(o.dtype) for d, o in zip(douts, outs, strict=True)]
    return [o.detach() for o in outs] + list(torch.autograd.grad(outs, leaves, pulled))


def wide(tensors: list[Tensor]) -> list[Tensor]:
    return [x.double() for x in tensors]


def compare(case: Case, douts: list[Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(ours, torch's, exact) of every output and gradient, after checking that it was Triton's
    path that ran and that every element of ours keeps the bound."""
    with Meter() as meter:
        mine = results(case.ours, case.inputs, douts)
    assert meter.programs or not all(x.numel() for x in case.inputs), "no Triton kernel ran"
    theirs = results(case.torchs, case.inputs, douts)
    inputs, pulled = wide(case.inputs), wide(douts)
    exact = results(case.spec, inputs, pulled)
    anchor = results(case.stored, inputs, pulled) if case.stored else exact
    roundings = 4 + math.log2(max(case.length, 1))
    found = []
    for place, terms in enumerate(case.terms(*inputs, *pulled)):
        a, b, e = mine[place], theirs[place], anchor[place]
        assert a.shape == e.shape and a.isfinite().all(), f"result {place}"
        slack = 2 * roundings * 2.0**-24 * terms + TINY
        if place in case.rounded:  # no nearer than its rounded terms allow
            most = 2.0**-8 * (case.rounded[place](*inputs, *pulled) + e.abs()) + slack
        else:
            most = (b.double() - e).abs().nan_to_num(torch.inf) + slack
        over = (a.double() - e).abs() > most
        assert not over.any(), (
            f"result {place}: {int(over.sum())} of {over.numel()} elements, first "
            f"{a[over][0]:.8g} for {e[over][0]:.8g}, torch's {b[over][0]:.8g}"
        )
        found.append((a, b, exact[place]))
    return found


def norm_terms(x, w, dy, along=None):
    """Σ|terms| of y, dx (along flows into it as well) and dw."""
    rstd = torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS)
    x_hat, g = (x * rstd).abs(), (dy * w).abs()
    dx = (g + x_hat * (g * x_hat).mean(-1, keepdim=True)) * rstd
    dw = (dy.abs() * x_hat).flatten(0, -2).sum(0)
    return (x_hat * w).abs(), dx if along is None else dx + along.abs(), dw


def rms_norm(x: Tensor, w: Tensor) -> Case:
    return Case(
        kernels.rms_norm,
        lambda x, w: F.rms_norm(x, w.shape, w, EPS),
        rms_norm_ref,
        [x, w],
        norm_terms,
        length=max(x.shape),
    )


def add_rms_norm(x: Tensor, r: Tensor, w: Tensor) -> Case:
    rounding = (x + r).double() - (x.double() + r.double())

    def stored(x, r, w):
        stream = x + r + rounding
        return rms_norm_ref(stream, w, EPS), stream

    def torchs(x, r, w):
        stream = x + r
        return F.rms_norm(stream, w.shape, w, EPS), stream

    def terms(x, r, w, dy, dstream):
        y, dx, dw = norm_terms(x + r + rounding, w, dy, dstream)
        return y, (x + r).abs(), dx, dx, dw

    return Case(
        kernels.add_rms_norm, torchs, add_rms_norm_ref, [x, r, w], terms, stored, max(x.shape)
    )


def rotate_half(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The usual bf16 code: whole-width tables in x's dtype."""
    c, s = (torch.cat((t, t), -1)[:, None].to(x.dtype) for t in (cos, sin))
    first, second = x.chunk(2, -1)
    return x * c + torch.cat((-second, first), -1) * s


def rope(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *weights: Tensor) -> Case:
    """With weights (of q, of k): QK-norm first."""
    wide_cos, wide_sin = cos.double(), sin.double()

    def torchs(q, k, *w):
        if w:
            q, k = (F.rms_norm(x, v.shape, v, EPS) for x, v in zip((q, k), w, strict=True))
        return rotate_half(q, cos, sin), rotate_half(k, cos, sin)

    def turned(x):  # the same for the turn back
        c, s = (torch.cat((t, t), -1)[:, None].abs() for t in (wide_cos, wide_sin))
        first, second = x.abs().chunk(2, -1)
        return x.abs() * c + torch.cat((second, first), -1) * s

    def terms(q, k, *rest):
        *w, dq, dk = rest
        if not w:
            return turned(q), turned(k), turned(dq), turned(dk)
        y_q, dx_q, dw_q = norm_terms(q, w[0], turned(dq))
        y_k, dx_k, dw_k = norm_terms(k, w[1], turned(dk))
        return turned(y_q), turned(y_k), dx_q, dx_k, dw_q, dw_k

    return Case(
        lambda q, k, *w: kernels.rope(q, k, cos, sin, *w),
        torchs,
        lambda q, k, *w: rope_ref(q, k, wide_cos, wide_sin, *w),
        [q, k, *weights],
        terms,
        length=max(q.shape) if weights else 1,
    )


def gated(gelu: bool, gate: Tensor, up: Tensor) -> Case:
    def terms(g, u, dh):
        k, slope = g, torch.ones_like(g)
        if gelu:
            c = 2 * math.sqrt(2 / math.pi)
            k, slope = c * (g + 0.044715 * g**3), c * (1 + 3 * 0.044715 * g * g)
        s = torch.sigmoid(k) * (1 + k.abs())  # an error of k is one of exp(k), |k| as large
        h = (g * s).abs()
        return h * u.abs(), (dh * u).abs() * (s + h * slope), dh.abs() * h

    def spec(g, u):  # 1 + tanh, as torch has it, is 0 even in fp64 where GELU is merely small
        c = 2 * math.sqrt(2 / math.pi)
        return g * torch.sigmoid(c * (g + 0.044715 * g**3)) * u

    if gelu:
        return Case(kernels.geglu, geglu_ref, spec, [gate, up], terms)
    return Case(kernels.swiglu, swiglu_ref, swiglu_ref, [gate, up], terms)


def torch_cross_entropy(
    logits, targets, *, ignore_index=-100, label_smoothing=0.0, z_loss=0.0, softcap=None,
    class_weight=None, shift=False, reduction="mean",
):  # fmt: skip
    """The usual code around F.cross_entropy, in the dtype of the logits."""
    if shift:
        targets = shifted(targets, ignore_index)
    x, t = logits.flatten(0, -2), targets.flatten()
    if softcap is not None:
        x = softcap * torch.tanh(x / softcap)
    weight = None if class_weight is None else class_weight.to(x.dtype)
    loss = F.cross_entropy(
        x, t, weight, ignore_index=ignore_index, label_smoothing=label_smoothing,
        reduction=reduction,
    )  # fmt: skip
    if z_loss:
        kept = t != ignore_index
        square = z_loss * x.logsumexp(-1).square() * kept
        if reduction == "none":
            loss = loss + square
        elif reduction == "sum":
            loss = loss + square.sum()
        else:
            count = kept.sum() if weight is None else (weight[t * kept] * kept).sum()
            loss = loss + square.sum() / count
    return loss.view_as(targets) if reduction == "none" else loss


def loss_terms(
    logits, dloss, targets, *, ignore_index=-100, label_smoothing=0.0, z_loss=0.0, softcap=None,
    class_weight=None, shift=False, reduction="mean",
):  # fmt: skip
    """Σ|terms| of the loss and of dlogits."""
    if shift:
        targets = shifted(targets, ignore_index)
    cap, v = softcap, logits.shape[-1]
    x = logits if cap is None else cap * torch.tanh(logits / cap)
    w = torch.ones(v).double() if class_weight is None else class_weight.double()
    kept = targets != ignore_index
    t = targets.where(kept, 0).unsqueeze(-1)
    own = w[t].squeeze(-1) * (1 - label_smoothing)
    smooth = label_smoothing / v
    lse = x.logsumexp(-1)
    # an error of lse or of x is one of p, as large; tanh's is of the size of the cap
    size = 1 + x.abs() + lse.abs().unsqueeze(-1) + (cap or 0)
    loss = own * size.gather(-1, t).squeeze(-1) + smooth * (w * size).sum(-1)
    loss = (loss + z_loss * lse * lse) * kept
    p = (x - lse.unsqueeze(-1)).exp() * size
    d = p * (own + smooth * w.sum() + 2 * z_loss * lse.abs()).unsqueeze(-1) + smooth * w
    d = d.scatter_add(-1, t, own.unsqueeze(-1)) * kept.unsqueeze(-1)
    if cap is not None:  # 1 − (x / cap)² is known to an eps of 1, not of itself
        d = 2 * d
    if reduction == "none":
        return loss, d * dloss.abs().unsqueeze(-1)
    count = 1.0
    if reduction == "mean":
        count = max((w[t].squeeze(-1) * kept).sum().item(), TINY)
    return loss.sum() / count, d * dloss.abs() / count


def cross_entropy(logits: Tensor, targets: Tensor, **options) -> Case:
    return Case(
        lambda x: kernels.cross_entropy(x, targets, **options),
        lambda x: torch_cross_entropy(x, targets, **options),
        lambda x: cross_entropy_ref(x, targets, **options),
        [logits],
        lambda x, d: loss_terms(x, d, targets, **options),
        length=max(logits.shape),
    )


def linear_cross_entropy(h: Tensor, w: Tensor, targets: Tensor, **options) -> Case:
    logits = F.linear(h, w).double()

    def stored(h, w):
        product = F.linear(h, w)
        return cross_entropy_ref(product + (logits - product).detach(), targets, **options)

    def terms(h, w, d):
        loss, dlogits = loss_terms(logits, d, targets, **options)
        return loss, dlogits @ w.abs(), (dlogits.flatten(0, -2).T @ h.flatten(0, -2).abs())

    def dlogits(d):
        x = logits.clone().requires_grad_()
        return torch.autograd.grad(cross_entropy_ref(x, targets, **options), x, d)[0].abs()

    return Case(
        lambda h, w: kernels.linear_cross_entropy(h, w, targets, **options),
        lambda h, w: torch_cross_entropy(F.linear(h, w), targets, **options),
        lambda h, w: cross_entropy_ref(F.linear(h, w), targets, **options),
        [h, w],
        terms,
        stored,
        length=max(*h.shape, *w.shape),
        rounded={
            1: lambda h, w, d: dlogits(d) @ w.abs(),
            2: lambda h, w, d: dlogits(d).flatten(0, -2).T @ h.flatten(0, -2).abs(),
        },
    )
