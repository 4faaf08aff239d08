"""Results do not depend on the order of programs, nor on how often the backward runs; inputs are
left alone."""

import random

import pytest
import torch

import kernels
from kernels.analysis.interpreter import Meter

M, V = 40, 1001
EVERYTHING = {
    "label_smoothing": 0.1, "z_loss": 1e-3, "softcap": 5.0, "shift": True,
    "class_weight": torch.linspace(0.5, 2, V),
}  # fmt: skip


def cases():
    """The operator, its inputs, and the other tensors that it is given."""
    torch.manual_seed(1)

    def t(*shape):
        return torch.randn(shape).bfloat16().requires_grad_()

    cos, sin = torch.randn(2, M, 16)
    targets = torch.randint(0, V, (M,))
    targets[::7] = -100
    heads = t(1, M, 6, 32), t(1, M, 2, 32)
    norms = t(32), t(32)
    logits, hidden, weight = t(M, V), t(M, 64), t(V, 64)
    loss = [targets, EVERYTHING["class_weight"]]

    def cross_entropy(**options):
        return lambda x: kernels.cross_entropy(x, targets, **options), [logits], loss

    def linear(**options):
        def op(h, w):
            return kernels.linear_cross_entropy(h, w, targets, **options)

        return op, [hidden, weight], loss

    return {
        "rms_norm": (kernels.rms_norm, [t(M, 256), t(256)], []),
        "add_rms_norm": (kernels.add_rms_norm, [t(M, 256), t(M, 256), t(256)], []),
        "rope": (lambda q, k: kernels.rope(q, k, cos, sin), [*heads], [cos, sin]),
        "rope with QK-norm": (
            lambda q, k, a, b: kernels.rope(q, k, cos, sin, a, b), [*heads, *norms], [cos, sin]
        ),
        "swiglu": (kernels.swiglu, [t(M, 301), t(M, 301)], []),
        "swiglu of rows apart": (
            lambda x: kernels.swiglu(*x.chunk(2, -1)), [t(M, 602)], []
        ),
        "geglu": (kernels.geglu, [t(M, 301), t(M, 301)], []),
        "cross_entropy": cross_entropy(),
        "cross_entropy with everything": cross_entropy(**EVERYTHING),
        "cross_entropy of each": cross_entropy(reduction="none"),
        "linear_cross_entropy": linear(),
        "linear_cross_entropy with everything": linear(**EVERYTHING),
        "linear losses": linear(reduction="none"),
        "linear losses with everything": linear(reduction="none", **EVERYTHING),
    }  # fmt: skip


FULL = {
    "swiglu of rows apart", "cross_entropy of each", "cross_entropy", "linear losses",
    "linear_cross_entropy",
}  # fmt: skip
NAMES = [
    pytest.param(name, marks=pytest.mark.full if name in FULL else ()) for name in cases()
]  # fmt: skip
LINEAR = [name for name in NAMES if name.values[0].startswith("linear")]


def run(function, inputs):
    out = function(*inputs)
    outs = out if isinstance(out, tuple) else (out,)
    torch.manual_seed(2)
    douts = [torch.randn(o.shape).to(o.dtype) for o in outs]
    before = [d.clone() for d in douts]
    grads = torch.autograd.grad(outs, inputs, douts, retain_graph=True)
    grads = [g.clone() for g in grads]
    again = torch.autograd.grad(outs, inputs, douts)
    assert same_bits(before, douts), "an upstream gradient was overwritten"
    return [*outs, *grads], [*outs, *again]


def same_bits(left, right):
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def shuffled(places):
    return random.Random(3).sample(places, len(places))


@pytest.mark.parametrize("name", NAMES)
def test_order_repetition_and_inputs(name):
    function, inputs, given = cases()[name]
    given = [*inputs, *given]
    before = [x.detach().clone() for x in given]
    forward, again = run(function, inputs)
    assert same_bits(forward, again), "a second backward differs"
    assert same_bits(before, [x.detach() for x in given]), "an input was overwritten"
    for order in (lambda places: places[::-1], shuffled):
        with Meter(order) as meter:
            other, _ = run(function, inputs)
        assert max(meter.programs.values()) > 1
        assert same_bits(forward, other), "the order of programs shows"


@pytest.mark.parametrize("name", LINEAR)
def test_order_in_each_of_several_chunks(name, monkeypatch):
    monkeypatch.setattr("kernels.launch.token_chunks.size", lambda *_: 16)
    test_order_repetition_and_inputs(name)
