"""Cases of kernels/ops/loss/crossentropy.py.

Liger-Kernel makes the gradient in its forward and has no launcher beside either direction.
"""

import torch
import torch.nn.functional as F

import kernels
from kernels.analysis.candidates import once_read_tiles
from kernels.analysis.case import (
    VOCABULARY,
    BenchCase,
    OperatorCases,
    TableRows,
    Workload,
    random_targets,
    random_tensor,
)
from kernels.analysis.liger import liger_function
from kernels.launch.config import ANY
from kernels.ops.loss import crossentropy

VARIES = ("rows", "ignored", "smoothing")


def random_class_weight(v, dtype, device, wanted):
    """(v,) weights in the wide type, or None."""
    wide = torch.promote_types(dtype, torch.float32)
    return random_tensor(wide, device, v).abs() + 0.5 if wanted else None


def _forward(weighted, softcap, statistics=False):
    def run(m, v, dtype, device, ignored=None, smoothing=0.1):
        logits = random_tensor(dtype, device, m, v)
        targets = random_targets(m, v, device, ignored)
        weight = random_class_weight(v, dtype, device, weighted)
        return crossentropy.forward(
            logits, targets, weight, -100, smoothing, 1e-4, softcap, statistics
        )

    return run


def _backward(weighted, softcap):
    def run(m, v, dtype, device, ignored=None, smoothing=0.1):
        logits = random_tensor(dtype, device, m, v)
        targets = random_targets(m, v, device, ignored)
        weight = random_class_weight(v, dtype, device, weighted)
        lse, g = (random_tensor(torch.float32, device, m) for _ in range(2))
        return crossentropy.backward(
            g, logits, targets, lse, weight, -100, smoothing, 1e-4, softcap
        )

    return run


def loss_workload(kernel, launcher, minimum, *, excluded_args, narrow=0, weighted=(False, True),
                  varies=VARIES, account=lambda size: {}, statistics=True):  # fmt: skip
    """A loss with and without a softcap and, by `weighted`, class weights; with
    `statistics`, if the launcher has those, where it has the rest."""
    options: list[tuple] = [(w, cap) for w in weighted for cap in (None, 30.0)]
    if statistics:
        options[-1] = (*options[-1], True)
    plain, *variants = (launcher(*chosen) for chosen in options)
    return Workload(
        kernel, VOCABULARY, plain, minimum, excluded_args, narrow, tuple(variants), varies, account
    )


def _inputs(m, v, dtype, device):
    targets = torch.randint(0, v, (m,), device=device)
    return torch.randn((m, v), dtype=dtype, device=device), targets


FORWARD = loss_workload(
    "cross_entropy_fwd", _forward, lambda m, v, e: m * v * e + 16 * m,
    excluded_args=("WEIGHT", "WEIGHT_SUM"),
)  # fmt: skip
BACKWARD = loss_workload(
    "cross_entropy_bwd", _backward, lambda m, v, e: 2 * m * v * e + 16 * m,
    excluded_args=("WEIGHT", "WEIGHT_SUM"), statistics=False,
)  # fmt: skip

CASES = OperatorCases(
    workloads={"cross_entropy_fwd": FORWARD, "cross_entropy_bwd": BACKWARD},
    bench={
        "cross_entropy": BenchCase(
            VOCABULARY, _inputs, 1, lambda x, t: kernels.cross_entropy(x, t), F.cross_entropy,
            lambda x, t: liger_function("LigerCrossEntropyFunction", None)(x, t)[0],
            (FORWARD, BACKWARD),
        )
    },
    table=(
        TableRows(("cross_entropy_fwd",), (ANY,), once_read_tiles, odd=True),
        TableRows(("cross_entropy_bwd",), (ANY,), once_read_tiles, odd=True),
    ),
)  # fmt: skip
