"""Cases of kernels/ops/gated.py."""

import torch.nn.functional as F

import kernels
from kernels.analysis.candidates import flat_tiles
from kernels.analysis.case import (
    FEED_FORWARD,
    BenchCase,
    LigerLaunch,
    OperatorCases,
    TableRows,
    Workload,
    random_rows,
    random_tensor,
)
from kernels.analysis.liger import liger_function, liger_module
from kernels.launch.config import ANY
from kernels.ops import gated


def _forward(gelu):
    def run(m, n, dtype, device):
        gate, up = random_tensor(dtype, device, m, n), random_tensor(dtype, device, m, n)
        return gated.forward(gate, up, gelu)

    return Workload("glu_fwd", FEED_FORWARD, run, lambda m, n, e: 3 * m * n * e, narrow=3)


def _backward(gelu):
    def run(m, n, dtype, device):
        dout, gate, up = (random_tensor(dtype, device, m, n) for _ in range(3))
        return gated.backward(dout, gate, up, gelu)

    return Workload("glu_bwd", FEED_FORWARD, run, lambda m, n, e: 5 * m * n * e, narrow=5)


def _liger(module, direction):
    def run(m, n, dtype, device):
        count = 3 if direction == "backward" else 2
        inputs = [random_tensor(dtype, device, m, n) for _ in range(count)]
        getattr(liger_module(module), f"{module}_{direction}")(*inputs)

    return LigerLaunch(run)


SWIGLU = _forward(False), _backward(False)
GEGLU = _forward(True), _backward(True)

CASES = OperatorCases(
    workloads={
        "swiglu_fwd": SWIGLU[0], "swiglu_bwd": SWIGLU[1],
        "geglu_fwd": GEGLU[0], "geglu_bwd": GEGLU[1],
    },
    bench={
        "swiglu": BenchCase(
            FEED_FORWARD, random_rows(2), 2, lambda g, u: kernels.swiglu(g, u),
            lambda g, u: F.silu(g) * u, liger_function("LigerSiLUMulFunction"), SWIGLU,
        ),
        "geglu": BenchCase(
            FEED_FORWARD, random_rows(2), 2, lambda g, u: kernels.geglu(g, u),
            lambda g, u: F.gelu(g, approximate="tanh") * u, liger_function("LigerGELUMulFunction"),
            GEGLU,
        ),
    },
    liger={
        "swiglu_fwd": _liger("swiglu", "forward"), "swiglu_bwd": _liger("swiglu", "backward"),
        "geglu_fwd": _liger("geglu", "forward"), "geglu_bwd": _liger("geglu", "backward"),
    },
    table=(
        TableRows(("swiglu_fwd", "geglu_fwd"), (ANY,), flat_tiles, probe=11008),
        TableRows(("swiglu_bwd", "geglu_bwd"), (ANY,), flat_tiles, probe=11008),
    ),
)  # fmt: skip
