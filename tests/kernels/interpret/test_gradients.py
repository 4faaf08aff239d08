"""Gradients against finite differences in fp64: along a random direction at odd sizes, and every
element of the Jacobian at small ones."""

from itertools import combinations

import pytest
import torch
from torch.autograd import gradcheck

import kernels


def f64(*shape):
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def check(function, *inputs, whole=False):
    assert gradcheck(function, inputs, fast_mode=not whole, atol=1e-6, rtol=1e-4)


def test_norms():
    check(kernels.rms_norm, f64(3, 50), f64(50))
    check(kernels.add_rms_norm, f64(3, 50), f64(3, 50), f64(50))
    x, r, w = f64(3, 50), f64(3, 50), f64(50)
    check(lambda *a: kernels.add_rms_norm(*a)[0], x, r, w)
    (dr,) = torch.autograd.grad(kernels.add_rms_norm(x, r, w)[1].sum(), r)
    assert dr.eq(1).all()


def test_gated():
    check(kernels.swiglu, f64(3, 21), f64(3, 21))
    check(kernels.geglu, f64(3, 21), f64(3, 21))


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("d", [6, 16])
def test_rope(norm, d):
    cos, sin = torch.randn(2, 5, d // 2, dtype=torch.float64)
    weights = (f64(d), f64(d)) if norm else ()
    turn = lambda q, k, *w: kernels.rope(q, k, cos, sin, *w)  # noqa: E731
    check(turn, f64(2, 5, 3, d), f64(2, 5, 2, d), *weights)
    check(lambda *a: turn(*a)[0], f64(2, 5, 3, d), f64(2, 5, 2, d), *weights)  # k is not used


EXTRAS = {
    "label_smoothing": 0.2, "z_loss": 0.01, "softcap": 3.0, "shift": True,
    "class_weight": torch.linspace(0.2, 2, 37, dtype=torch.float64),
}  # fmt: skip


def chosen_extras():
    """Every combination; none, each alone and all of them in the short run."""
    for count in range(len(EXTRAS) + 1):
        marks = pytest.mark.full if 1 < count < len(EXTRAS) else ()
        for chosen in combinations(EXTRAS, count):
            yield pytest.param(chosen, marks=marks, id=" ".join(chosen))


@pytest.mark.parametrize("chosen", chosen_extras())
def test_cross_entropies(chosen):
    options = {name: EXTRAS[name] for name in chosen}
    options["reduction"] = ("mean", "sum", "none")[len(chosen) % 3]
    targets = torch.randint(0, 37, (2, 4))
    targets[0, 1] = -100
    check(lambda x: kernels.cross_entropy(x, targets, **options), f64(2, 4, 37))
    check(lambda h, w: kernels.linear_cross_entropy(h, w, targets, **options),
          f64(2, 4, 6), f64(37, 6))  # fmt: skip


SMALL_TARGETS = torch.tensor([4, -100])
SMALL_COS, SMALL_SIN = torch.tensor([[[0.6, 0.8]], [[0.8, -0.6]]], dtype=torch.float64)
TEACHER = (
    torch.linspace(-1, 1, 8, dtype=torch.float64).view(2, 4),
    torch.linspace(1, -1, 28, dtype=torch.float64).view(7, 4),
)
FEW = {
    "label_smoothing": 0.2, "z_loss": 0.01, "softcap": 3.0,
    "class_weight": torch.linspace(0.5, 2, 7, dtype=torch.float64),
}  # fmt: skip
WHOLE = {
    "rms_norm": (kernels.rms_norm, (2, 5), (5,)),
    "rms_norm of 1 + weight": (lambda x, w: kernels.rms_norm(x, w, offset=1.0), (2, 5), (5,)),
    "rms_norm without weight": (kernels.rms_norm, (2, 5)),
    "add_rms_norm": (kernels.add_rms_norm, (2, 5), (2, 5), (5,)),
    "add_rms_norm of 1 + weight": (
        lambda x, r, w: kernels.add_rms_norm(x, r, w, offset=1.0), (2, 5), (2, 5), (5,)
    ),
    "add_rms_norm without weight": (kernels.add_rms_norm, (2, 5), (2, 5)),
    "swiglu": (kernels.swiglu, (2, 3), (2, 3)),
    "geglu": (kernels.geglu, (2, 3), (2, 3)),
    "rope": (lambda q, k: kernels.rope(q, k, SMALL_COS, SMALL_SIN), (1, 1, 2, 4), (1, 1, 1, 4)),
    "rope with QK-norm": (
        lambda q, k, *w: kernels.rope(q, k, SMALL_COS, SMALL_SIN, *w),
        (1, 1, 2, 4), (1, 1, 1, 4), (4,), (4,),
    ),
    "cross_entropy": (
        lambda x: kernels.cross_entropy(x, SMALL_TARGETS, reduction="none", **FEW), (2, 7)
    ),
    "linear_cross_entropy": (
        lambda h, w: kernels.linear_cross_entropy(h, w, SMALL_TARGETS, **FEW), (2, 3), (7, 3)
    ),
    "linear_cross_entropy with a bias": (
        lambda h, w, b: kernels.linear_cross_entropy(h, w, SMALL_TARGETS, bias=b, **FEW),
        (2, 3), (7, 3), (7,),
    ),
    "linear losses with a bias": (
        lambda h, w, b: kernels.linear_cross_entropy(
            h, w, SMALL_TARGETS, bias=b, reduction="none", **FEW
        ),
        (2, 3), (7, 3), (7,),
    ),
    "linear losses": (
        lambda h, w: kernels.linear_cross_entropy(h, w, SMALL_TARGETS, reduction="none", **FEW),
        (2, 3), (7, 3),
    ),
    "linear_jsd": (
        lambda h, w, b: kernels.linear_jsd(h, w, *TEACHER, bias=b, beta=0.25),
        (2, 3), (7, 3), (7,),
    ),
    "linear_dpo": (
        lambda h, w, b: kernels.linear_dpo(
            h, w, SMALL_TARGETS[:, None].clamp(min=0), None, bias=b, label_smoothing=0.25
        ),
        (2, 1, 3), (7, 3), (7,),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(WHOLE))
def test_every_element_of_the_jacobian(name):
    function, *shapes = WHOLE[name]
    check(function, *(f64(*shape) for shape in shapes), whole=True)


def test_only_the_gradients_that_are_wanted():
    h, w, targets = f64(4, 6), f64(30, 6), torch.randint(0, 30, (4,))
    full = torch.autograd.grad(kernels.linear_cross_entropy(h, w, targets), (h, w))
    (dh,) = torch.autograd.grad(kernels.linear_cross_entropy(h, w.detach(), targets), h)
    (dw,) = torch.autograd.grad(kernels.linear_cross_entropy(h.detach(), w, targets), w)
    assert torch.equal(dh, full[0]) and torch.equal(dw, full[1])
    with torch.no_grad():
        loss = kernels.linear_cross_entropy(h, w, targets)
    torch.testing.assert_close(loss, kernels.linear_cross_entropy(h, w, targets).detach())
