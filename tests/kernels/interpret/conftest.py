"""Every test here runs Triton kernels in the interpreter, or fails."""

import os

import pytest
import torch

import kernels

HERE = os.path.dirname(__file__)


def pytest_collection_modifyitems(items):
    for item in items:
        if str(item.path).startswith(HERE):
            item.add_marker(pytest.mark.kernels_interpret)


@pytest.fixture(autouse=True)
def meter(request):
    """kernels=triton, interpreted; the test fails when no kernel program ran in it, unless it is
    marked no_kernel (nothing to run: an empty tensor, a refusal)."""
    from kernels.interpreter import Meter, install

    install()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    previous = kernels.use("triton")
    with Meter() as meter:
        yield meter
    kernels.use(previous)
    if not request.node.get_closest_marker("no_kernel"):
        assert meter.programs, "no Triton kernel ran: this was the reference path"
