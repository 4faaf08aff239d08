"""Derivatives beyond the backward, right or refused by name, on whichever path is chosen.

The inputs are products of leaves: a gradient that depends on a leaf only through the input of the
operator is where a constant in a backward goes unnoticed.
"""

from itertools import product

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from kernels import KernelError
from tests.kernels.calls import CALLS, as_tuple


def second_derivative(function, inputs: list[Tensor], factors: list[Tensor]) -> list[Tensor]:
    """d/d(inputs, factors) of Σ (d Σ out²/d inputs)², out = function(inputs · factors)."""
    outs = as_tuple(function(*(x * f for x, f in zip(inputs, factors, strict=True))))
    total = sum(out.square().sum() for out in outs)
    assert isinstance(total, Tensor)
    grads = torch.autograd.grad(total, inputs, create_graph=True)
    squares = sum(g.square().sum() for g in grads)
    assert isinstance(squares, Tensor)
    return list(torch.autograd.grad(squares, [*inputs, *factors]))


def check_second_derivative(name: str) -> bool:
    """True where `name` has a second derivative, which is then the specification's; False where it
    is refused by name."""
    call = CALLS[name]
    inputs = call.inputs()
    factors = [torch.rand_like(x).add(0.5).requires_grad_() for x in inputs]
    expected = second_derivative(call.spec, inputs, factors)
    try:
        actual = second_derivative(call.ours, inputs, factors)
    except KernelError as error:
        assert name.split()[0].split("_")[0] in str(error) and "second derivative" in str(error)
        return False
    torch.testing.assert_close(actual, expected)
    return True


def backward_only(name: str) -> None:
    """The same graph without a second derivative goes through."""
    call = CALLS[name]
    inputs = call.inputs()
    outs = as_tuple(call.ours(*inputs))
    pulled = [torch.ones_like(out) for out in outs]
    assert all(g.isfinite().all() for g in torch.autograd.grad(outs, inputs, pulled))


def tangents(function, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """The derivative along the inputs themselves, by forward_ad as torch.func.jvp takes it."""
    with forward_ad.dual_level():
        outs = as_tuple(function(*(forward_ad.make_dual(x, x) for x in inputs)))
        found = [forward_ad.unpack_dual(out).tangent for out in outs]
    assert all(tangent is not None for tangent in found), "a tangent was dropped"
    return tuple(found)


def jvp(function, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    return as_tuple(torch.func.jvp(function, tuple(inputs), tuple(inputs))[1])


def func_grad(function, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    def total(*x):
        return sum(out.square().sum() for out in as_tuple(function(*x)))

    return torch.func.grad(total, tuple(range(len(inputs))))(*inputs)


def check_forward_mode(name: str) -> bool:
    """True where `name` has derivatives in forward mode and of torch.func, the specification's;
    False where each is refused by name, with and without inputs that require gradients."""
    call, answers = CALLS[name], set()
    for derivative, wanted in product((tangents, jvp, func_grad), (False, True)):
        inputs = [x.detach().requires_grad_(wanted) for x in call.inputs()]
        expected = derivative(call.spec, inputs)
        try:
            torch.testing.assert_close(derivative(call.ours, inputs), expected)
            answers.add(True)
        except KernelError as error:
            assert name.split()[0].split("_")[0] in str(error) and "forward mode" in str(error)
            answers.add(False)
    (answer,) = answers
    return answer


names = pytest.mark.parametrize("name", list(CALLS))
