"""Cases of kernels/ops/addnorm.py."""

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
from kernels.ops import addnorm, rmsnorm

SIZES = (128, 512, *HIDDEN)


def _forward(m, n, dtype, device):
    x, r, w = (random_tensor(dtype, device, *s) for s in ((m, n), (m, n), (n,)))
    return addnorm.forward(x, r, w, EPS, 0.0, dtype)


def _backward(m, n, dtype, device):
    x, dy, ds, w = (random_tensor(dtype, device, *s) for s in ((m, n), (m, n), (m, n), (n,)))
    return rmsnorm.backward(dy, x, w, random_tensor(torch.float32, device, m), ds, 0.0)


def _liger_forward(m, n, dtype, device):
    x, r, w = (random_tensor(dtype, device, *shape) for shape in ((m, n), (m, n), (n,)))
    liger_module("fused_add_rms_norm").fused_add_rms_norm_forward(x, r, w, EPS, 0.0, NORM_CASTING)


def _liger_backward(m, n, dtype, device):
    shapes = ((m, n), (m, n), (m, n), (n,))
    dy, ds, s, w = (random_tensor(dtype, device, *shape) for shape in shapes)
    rstd = random_tensor(torch.float32, device, m)
    launch = *liger_module("utils").calculate_settings(n), 2  # stages, as the forward hands them on
    liger_module("fused_add_rms_norm").fused_add_rms_norm_backward(
        dy, ds, s, w, rstd, 0.0, NORM_CASTING, *launch, False
    )


def _eager(x, residual, weight):
    stream = residual + x
    return F.rms_norm(stream, weight.shape, weight, EPS), stream


FORWARD = Workload(
    "add_rms_norm_fwd", HIDDEN, _forward, lambda m, n, e: 4 * m * n * e + 4 * m, ("WEIGHT",),
    narrow=1,
)  # fmt: skip
BACKWARD = Workload(
    "add_rms_norm_bwd", HIDDEN, _backward, lambda m, n, e: 4 * m * n * e + 4 * m,
    ("WEIGHT", "DWEIGHT", "PARTIAL", "OUT"), narrow=1,
)  # fmt: skip

CASES = OperatorCases(
    workloads={"add_rms_norm_fwd": FORWARD, "add_rms_norm_bwd": BACKWARD},
    bench={
        "add_rms_norm": BenchCase(
            HIDDEN, random_rows(2, weights=1), 3,
            lambda x, r, w: kernels.add_rms_norm(x, r, w, EPS),
            _eager,
            liger_function("LigerFusedAddRMSNormFunction", EPS),
            (FORWARD, BACKWARD),
        )
    },
    liger={
        "add_rms_norm_fwd": LigerLaunch(_liger_forward, ("W_ptr",)),
        "add_rms_norm_bwd": LigerLaunch(_liger_backward, ("W_ptr", "dW_ptr")),
    },
    table=(
        TableRows(("add_rms_norm_fwd",), SIZES, whole_rows),
        TableRows(("add_rms_norm_bwd",), SIZES, rows_with_sums, keeps_sums=True),
    ),
)  # fmt: skip
