"""Gradients against finite differences in fp64."""

import pytest
import torch
from torch.autograd import gradcheck

import kernels


def f64(*shape):
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def check(function, *inputs):
    assert gradcheck(function, inputs, fast_mode=True, atol=1e-6, rtol=1e-4)


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
def test_rope(norm):
    cos, sin = torch.randn(2, 5, 8, dtype=torch.float64)
    weights = (f64(16), f64(16)) if norm else ()
    check(lambda q, k, *w: kernels.rope(q, k, cos, sin, *w), f64(2, 5, 3, 16), f64(2, 5, 2, 16),
          *weights)  # fmt: skip


OPTIONS = [
    {},
    {"reduction": "sum", "label_smoothing": 0.1},
    {"reduction": "none", "z_loss": 0.01, "softcap": 3.0},
    {"label_smoothing": 0.2, "z_loss": 0.01, "softcap": 5.0, "class_weight": True},
    {"shift": True, "class_weight": True},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("linear", [False, True])
def test_cross_entropies(options, linear):
    options = dict(options)
    if options.pop("class_weight", False):
        options["class_weight"] = torch.rand(37, dtype=torch.float64) + 0.5
    targets = torch.randint(0, 37, (2, 4))
    targets[0, 1] = -100
    if linear:
        check(lambda h, w: kernels.linear_cross_entropy(h, w, targets, **options),
              f64(2, 4, 6), f64(37, 6))  # fmt: skip
    else:
        check(lambda x: kernels.cross_entropy(x, targets, **options), f64(2, 4, 37))


def test_only_the_gradients_that_are_wanted():
    h, w, targets = f64(4, 6), f64(30, 6), torch.randint(0, 30, (4,))
    full = torch.autograd.grad(kernels.linear_cross_entropy(h, w, targets), (h, w))
    (dh,) = torch.autograd.grad(kernels.linear_cross_entropy(h, w.detach(), targets), h)
    (dw,) = torch.autograd.grad(kernels.linear_cross_entropy(h.detach(), w, targets), w)
    assert torch.equal(dh, full[0]) and torch.equal(dw, full[1])
    with torch.no_grad():
        loss = kernels.linear_cross_entropy(h, w, targets)
    torch.testing.assert_close(loss, kernels.linear_cross_entropy(h, w, targets).detach())
