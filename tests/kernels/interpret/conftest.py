"""Every test here runs Triton kernels in the interpreter, or fails."""

from pathlib import Path

import pytest
import torch

import kernels

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.kernels_interpret)


@pytest.fixture(autouse=True)
def meter(request):
    """kernels=triton, interpreted; the test fails when no kernel program ran in it, unless it is
    marked elsewhere (its kernels run in other processes, or there is nothing to run)."""
    from kernels.analysis.interpreter import Meter, install

    install()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    previous = kernels.use("triton")
    with Meter() as meter:
        yield meter
    kernels.use(previous)
    if "elsewhere" not in request.fixturenames:
        assert meter.programs, "no Triton kernel ran: this was the reference path"


@pytest.fixture
def elsewhere():
    """Asked for by tests that run no kernel in this process, and check so themselves."""
