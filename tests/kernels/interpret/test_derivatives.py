"""Derivatives beyond the backward, of the kernels: right or refused by name."""

from tests.kernels.derivatives import (
    backward_only,
    check_forward_mode,
    check_second_derivative,
    names,
)


@names
def test_second_derivative(name):
    backward_only(name)
    # the backward of a rotation without norm is a rotation, which has one
    assert check_second_derivative(name) == (name == "rope")


@names
def test_forward_mode(name, elsewhere):
    assert not check_forward_mode(name)
