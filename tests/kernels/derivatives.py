"""Derivatives beyond the backward, right or refused by name, on whichever path is chosen.

The inputs are products of leaves: a gradient that depends on a leaf only through the input of the
operator is where a constant in a backward goes unnoticed.
"""

import pytest
import torch
from torch import Tensor

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


names = pytest.mark.parametrize("name", list(CALLS))
