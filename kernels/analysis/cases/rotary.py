"""Cases of kernels/ops/rotary.py.

Liger-Kernel has no rotation with QK-norm; of its rotation the backward is the same kernel with one
flag, so that the forward alone stands beside ours.
"""

import torch
import torch.nn.functional as F

import kernels
from kernels.analysis.candidates import halves
from kernels.analysis.case import (
    EPS,
    HEAD,
    K_HEADS,
    Q_HEADS,
    BenchCase,
    LigerLaunch,
    OperatorCases,
    TableRows,
    Workload,
    random_tensor,
)
from kernels.analysis.liger import liger_function, liger_module
from kernels.ops import rotation
from kernels.ops.rotary import rope_ref

SIZES = (32, *HEAD)


def _inputs(m, d, dtype, device, batch):
    q, k = (random_tensor(dtype, device, batch, m, heads, d) for heads in (Q_HEADS, K_HEADS))
    angles = random_tensor(torch.float32, device, m, d // 2)
    return q, k, angles.cos().to(dtype), angles.sin().to(dtype)


def _rope(m, d, dtype, device, batch=1):
    q, k, cos, sin = _inputs(m, d, dtype, device, batch)
    return rotation.forward(q, k, cos, sin, None, None, EPS, False)


def _norm_forward(m, d, dtype, device, batch=1):
    w = random_tensor(dtype, device, d)
    q, k, cos, sin = _inputs(m, d, dtype, device, batch)
    return rotation.forward(q, k, cos, sin, w, w, EPS, False)


def _norm_backward(m, d, dtype, device, batch=1):
    q, k, cos, sin = _inputs(m, d, dtype, device, batch)
    w = random_tensor(dtype, device, d)
    return rotation.backward(q.clone(), k.clone(), q, k, cos, sin, w, w, EPS)


def _liger_rope(m, d, dtype, device, batch=1):
    q = random_tensor(dtype, device, batch, m, Q_HEADS, d).transpose(1, 2)
    k = random_tensor(dtype, device, batch, m, K_HEADS, d).transpose(1, 2)
    cos, sin = random_tensor(dtype, device, 1, m, d), random_tensor(dtype, device, 1, m, d)
    liger_module("rope").rope_forward(q, k, cos, sin)


def _liger_bench(q, k, cos, sin):
    turned = liger_function("LigerRopeFunction", None, 1, q.shape[-1])(
        q.transpose(1, 2), k.transpose(1, 2), cos, sin
    )
    return tuple(x.transpose(1, 2) for x in turned)


def _eager_norm(q, k, q_weight, k_weight, cos, sin):
    q = F.rms_norm(q, q_weight.shape, q_weight, EPS)
    return rope_ref(q, F.rms_norm(k, k_weight.shape, k_weight, EPS), cos, sin)


def _bench_inputs(weights):
    def inputs(m, d, dtype, device):
        shapes = [(1, m, Q_HEADS, d), (1, m, K_HEADS, d)] + [(d,)] * weights
        angles = torch.randn(m, d // 2, device=device)
        tensors = [torch.randn(shape, dtype=dtype, device=device) for shape in shapes]
        return *tensors, angles.cos().to(dtype), angles.sin().to(dtype)

    return inputs


def _min_bytes(m, d, e):
    return 2 * m * (Q_HEADS + K_HEADS) * d * e


TABLES = ("COS", "SIN")
WEIGHTS = ("Q_WEIGHT", "K_WEIGHT")
ROPE = Workload("rope", HEAD, _rope, _min_bytes, TABLES, varies=("batch",))
NORM_FORWARD = Workload(
    "rope", HEAD, _norm_forward, _min_bytes, (*TABLES, *WEIGHTS), varies=("batch",)
)
NORM_BACKWARD = Workload(
    "rope_norm_bwd", HEAD, _norm_backward, lambda m, d, e: 3 * _min_bytes(m, d, e) // 2,
    (*TABLES, *WEIGHTS, "DWEIGHT", "PARTIAL", "OUT"), varies=("batch",),
)  # fmt: skip

CASES = OperatorCases(
    workloads={"rope": ROPE, "rope_norm_fwd": NORM_FORWARD, "rope_norm_bwd": NORM_BACKWARD},
    bench={
        "rope": BenchCase(
            HEAD, _bench_inputs(0), 2, lambda q, k, cos, sin: kernels.rope(q, k, cos, sin),
            rope_ref, _liger_bench, (ROPE, ROPE),
        ),
        "rope_norm": BenchCase(
            HEAD, _bench_inputs(2), 4,
            lambda q, k, qw, kw, cos, sin: kernels.rope(q, k, cos, sin, qw, kw, EPS),
            _eager_norm, workloads=(NORM_FORWARD, NORM_BACKWARD),
        ),
    },
    liger={"rope": LigerLaunch(_liger_rope, ("cos", "sin"))},
    table=(
        TableRows(("rope", "rope_norm_fwd"), SIZES, halves),
        TableRows(("rope_norm_bwd",), SIZES, halves),
    ),
)  # fmt: skip
