"""Derivatives beyond the backward, of the torch path: right or refused by name."""

import pytest

import kernels
from tests.kernels.derivatives import (
    backward_only,
    check_forward_mode,
    check_second_derivative,
    names,
)


@pytest.fixture(autouse=True, params=["auto", "torch"])
def torch_path(request):
    previous = kernels.use(request.param)
    yield
    kernels.use(previous)


@names
def test_second_derivative(name):
    backward_only(name)
    # a mean or a sum makes its gradients in the forward; preferences make logits again
    assert check_second_derivative(name) == (name == "linear of each" or "linear" not in name)


@names
def test_forward_mode(name):
    """Under auto a CPU refuses what a GPU would; plain torch, where it is chosen, has all."""
    assert check_forward_mode(name) == (kernels.current() == "torch" and "linear" not in name)
