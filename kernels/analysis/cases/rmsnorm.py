"""Cases of kernels/ops/rmsnorm.py."""

import torch
import torch.nn.functional as F

import kernels
from kernels.analysis.candidates import rows_with_sums, whole_rows
from kernels.analysis.case import (
    EPS,
    HIDDEN,
    BenchCase,
    LigerLaunch,
    OperatorCases,
    TableRows,
    Workload,
    random_rows,
    random_tensor,
)
from kernels.analysis.liger import NORM_CASTING, liger_function, liger_module
from kernels.ops import rmsnorm

SIZES = (128, 512, *HIDDEN)


def _forward(m, n, dtype, device):
    x, w = random_tensor(dtype, device, m, n), random_tensor(dtype, device, n)
    return rmsnorm.forward(x, w, EPS, 0.0, dtype)


def _backward(m, n, dtype, device, offset=0.0):
    x, dy, w = (random_tensor(dtype, device, *s) for s in ((m, n), (m, n), (n,)))
    rstd = random_tensor(torch.float32, device, m)
    return rmsnorm.backward(dy, x, w, rstd, None, offset)


def _offset_backward(m, n, dtype, device):
    return _backward(m, n, dtype, device, 1.0)


def _liger_forward(m, n, dtype, device):
    x, w = random_tensor(dtype, device, m, n), random_tensor(dtype, device, n)
    liger_module("rms_norm").rms_norm_forward(x, w, EPS, 0.0, NORM_CASTING, None)


def _liger_backward(m, n, dtype, device):
    dy, x, w = (random_tensor(dtype, device, *shape) for shape in ((m, n), (m, n), (n,)))
    rstd = random_tensor(torch.float32, device, m)
    launch = liger_module("utils").calculate_settings(n)
    liger_module("rms_norm").rms_norm_backward(
        dy, x, w, rstd, 0.0, NORM_CASTING, *launch, True, None
    )


FORWARD = Workload(
    "rms_norm_fwd", HIDDEN, _forward, lambda m, n, e: 2 * m * n * e + 4 * m, ("WEIGHT",), narrow=1
)
BACKWARD = Workload(
    "rms_norm_bwd", HIDDEN, _backward, lambda m, n, e: 3 * m * n * e + 4 * m,
    ("WEIGHT", "DWEIGHT", "PARTIAL", "OUT"), narrow=1, variants=(_offset_backward,),
)  # fmt: skip

CASES = OperatorCases(
    workloads={"rms_norm_fwd": FORWARD, "rms_norm_bwd": BACKWARD},
    bench={
        "rms_norm": BenchCase(
            HIDDEN, random_rows(1, weights=1), 2,
            lambda x, w: kernels.rms_norm(x, w, EPS),
            lambda x, w: F.rms_norm(x, w.shape, w, EPS),
            liger_function("LigerRMSNormFunction", EPS),
            (FORWARD, BACKWARD),
        )
    },
    liger={
        "rms_norm_fwd": LigerLaunch(_liger_forward, ("W_ptr",)),
        "rms_norm_bwd": LigerLaunch(_liger_backward, ("W_ptr", "dW_ptr")),
    },
    table=(
        TableRows(("rms_norm_fwd",), SIZES, whole_rows),
        TableRows(("rms_norm_bwd",), SIZES, rows_with_sums, keeps_sums=True),
    ),
)  # fmt: skip
