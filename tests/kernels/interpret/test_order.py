"""Results do not depend on the order of programs, nor on how often the backward runs; inputs are
left alone."""

import random

import pytest
import torch

import kernels
from kernels.interpreter import Meter


def cases():
    torch.manual_seed(1)

    def t(*shape):
        return torch.randn(shape).bfloat16().requires_grad_()

    cos, sin = torch.randn(2, 40, 16)
    targets = torch.randint(0, 1001, (40,))
    heads = t(1, 40, 6, 32), t(1, 40, 2, 32)
    return {
        "rms_norm": (kernels.rms_norm, [t(40, 256), t(256)]),
        "add_rms_norm": (kernels.add_rms_norm, [t(40, 256), t(40, 256), t(256)]),
        "rope": (lambda q, k: kernels.rope(q, k, cos, sin), [*heads]),
        "rope with QK-norm": (
            lambda q, k, a, b: kernels.rope(q, k, cos, sin, a, b), [*heads, t(32), t(32)]
        ),
        "swiglu": (kernels.swiglu, [t(40, 301), t(40, 301)]),
        "geglu": (kernels.geglu, [t(40, 301), t(40, 301)]),
        "cross_entropy": (lambda x: kernels.cross_entropy(x, targets), [t(40, 1001)]),
        "linear_cross_entropy": (
            lambda h, w: kernels.linear_cross_entropy(h, w, targets), [t(40, 64), t(1001, 64)]
        ),
        "linear losses": (
            lambda h, w: kernels.linear_cross_entropy(h, w, targets, reduction="none"),
            [t(40, 64), t(1001, 64)],
        ),
    }  # fmt: skip


NAMES = list(cases())


def run(function, inputs):
    out = function(*inputs)
    outs = out if isinstance(out, tuple) else (out,)
    torch.manual_seed(2)
    douts = [torch.randn(o.shape).to(o.dtype) for o in outs]
    grads = torch.autograd.grad(outs, inputs, douts, retain_graph=True)
    again = torch.autograd.grad(outs, inputs, douts)
    return [*outs, *grads], [*outs, *again]


def same_bits(left, right):
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def shuffled(places):
    return random.Random(3).sample(places, len(places))


@pytest.mark.parametrize("name", NAMES)
def test_order_repetition_and_inputs(name):
    function, inputs = cases()[name]
    before = [x.detach().clone() for x in inputs]
    forward, again = run(function, inputs)
    assert same_bits(forward, again), "a second backward differs"
    assert same_bits(before, [x.detach() for x in inputs]), "an input was overwritten"
    for order in (lambda places: places[::-1], shuffled):
        with Meter(order) as meter:
            other, _ = run(function, inputs)
        assert max(meter.programs.values()) > 1
        assert same_bits(forward, other), "the order of programs shows"
