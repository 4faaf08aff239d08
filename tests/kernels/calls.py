"""Every public operator on small inputs, beside its specification: one table for the tests of both
paths."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import kernels
from kernels.ops.addnorm import add_rms_norm_ref
from kernels.ops.gated import geglu_ref, swiglu_ref
from kernels.ops.loss.crossentropy import cross_entropy_ref
from kernels.ops.loss.linear_crossentropy import linear_cross_entropy_ref
from kernels.ops.loss.linear_dpo import linear_dpo_ref
from kernels.ops.loss.linear_jsd import linear_jsd_ref
from kernels.ops.loss.linear_kl import linear_kl_ref
from kernels.ops.rmsnorm import rms_norm_ref
from kernels.ops.rotary import rope_ref

COS, SIN = torch.tensor([[0.6, 0.8], [1.0, 0.0], [0.8, -0.6]]), torch.full((3, 2), 0.5)
TARGETS = torch.tensor([4, -100, 0, 6])
EVERYTHING = {
    "label_smoothing": 0.1, "z_loss": 1e-2, "softcap": 4.0, "shift": True,
    "class_weight": torch.linspace(0.5, 2, 7),
}  # fmt: skip


@dataclass(frozen=True)
class Call:
    """An operator and its specification, both functions of tensors of `shapes`."""

    ours: Callable[..., Tensor | tuple[Tensor, ...]]
    spec: Callable[..., Tensor | tuple[Tensor, ...]]
    shapes: tuple[tuple[int, ...], ...]

    def inputs(self, dtype: torch.dtype = torch.float64) -> list[Tensor]:
        return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in self.shapes]


def rope_call(*weights: tuple[int, ...]) -> Call:
    def spec(q, k, *w):
        return rope_ref(q, k, COS.to(q.dtype), SIN.to(q.dtype), *w)

    shapes = (1, 3, 2, 4), (1, 3, 1, 4), *weights
    return Call(lambda *x: kernels.rope(*x[:2], COS, SIN, *x[2:]), spec, shapes)


def loss_call(**options) -> Call:
    return Call(
        lambda x: kernels.cross_entropy(x, TARGETS, **options),
        lambda x: cross_entropy_ref(x, TARGETS, **options),
        ((4, 7),),
    )


def linear_call(**options) -> Call:
    return Call(
        lambda h, w: kernels.linear_cross_entropy(h, w, TARGETS, **options),
        lambda h, w: linear_cross_entropy_ref(h, w, TARGETS, **options),
        ((4, 5), (7, 5)),
    )


TEACHER = (
    torch.linspace(-1, 1, 12).double().view(4, 3),
    torch.linspace(1, -1, 21).double().view(7, 3),
)
ANSWERS, REFERENCE = torch.tensor([[4, 2], [-100, 0], [6, 6], [1, -100]]), torch.linspace(-9, -5, 4)


def distillation_call(ours: Callable, spec: Callable, **options) -> Call:
    return Call(
        lambda h, w: ours(h, w, *TEACHER, **options),
        lambda h, w: spec(h, w, *TEACHER, **options),
        ((4, 5), (7, 5)),
    )


def preference_call(**options) -> Call:
    return Call(
        lambda h, w: kernels.linear_dpo(h, w, ANSWERS, REFERENCE, **options),
        lambda h, w: linear_dpo_ref(h, w, ANSWERS, REFERENCE, **options),
        ((4, 2, 5), (7, 5)),
    )


CALLS = {
    "rms_norm": Call(kernels.rms_norm, rms_norm_ref, ((3, 8), (8,))),
    "add_rms_norm": Call(kernels.add_rms_norm, add_rms_norm_ref, ((3, 8), (3, 8), (8,))),
    "swiglu": Call(kernels.swiglu, swiglu_ref, ((3, 7), (3, 7))),
    "geglu": Call(kernels.geglu, geglu_ref, ((3, 7), (3, 7))),
    "rope": rope_call(),
    "rope with QK-norm": rope_call((4,), (4,)),
    "cross_entropy": loss_call(),
    "cross_entropy of each": loss_call(reduction="none", **EVERYTHING),
    "linear_cross_entropy": linear_call(),
    "linear sum": linear_call(reduction="sum", **EVERYTHING),
    "linear of each": linear_call(reduction="none"),
    "linear_kl": distillation_call(kernels.linear_kl, linear_kl_ref),
    "linear_jsd": distillation_call(kernels.linear_jsd, linear_jsd_ref, beta=0.25),
    "linear_dpo": preference_call(),
}


def as_tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def fp16_errors_of_far_classes(mode: str, rows: int = 64) -> tuple[float, float]:
    """Relative errors of dW against fp64, ours and that of torch's own fp16 code, of the classes
    that are never a target, under AMP's first loss scale."""
    previous, v = kernels.use(mode), 32_000
    torch.manual_seed(0)
    h, w = torch.randn(rows, 8).half(), (torch.randn(v, 8) / 3).half()
    targets = torch.arange(rows)

    def far(function, dtype):
        leaf = w.to(dtype, copy=True).requires_grad_()
        (function(h.to(dtype), leaf, targets) * 65_536).backward()
        assert leaf.grad is not None
        return leaf.grad[rows:].double()

    exact = far(linear_cross_entropy_ref, torch.float64)
    found = [
        far(function, torch.float16)
        for function in (kernels.linear_cross_entropy, linear_cross_entropy_ref)
    ]
    kernels.use(previous)
    ours, torchs = (((x - exact).norm() / exact.norm()).item() for x in found)
    return ours, torchs
