"""Cases of kernels/ops/loss/linear_crossentropy.py.

Liger-Kernel has one kernel for the loss and its gradient, which its fused linear layer launches.
"""

import torch
import torch.nn.functional as F

import kernels
from kernels.analysis.candidates import rows_in_vectors, twice_read_tiles
from kernels.analysis.case import (
    VOCABULARY,
    BenchCase,
    LigerLaunch,
    OperatorCases,
    TableRows,
    random_targets,
    random_tensor,
)
from kernels.analysis.cases.crossentropy import loss_workload, random_class_weight
from kernels.analysis.liger import liger_function, liger_module
from kernels.launch import token_chunks
from kernels.launch.config import ANY
from kernels.ops.loss.criterion import Criterion
from kernels.ops.loss.linear_fused import empty_statistics, loss_and_gradient
from kernels.ops.loss.row import class_table

WIDTH = 4096  # hidden size before an output layer
ROWS_IN_REGISTERS = (1024, 4096, 16384, 32768, 65536, 131072, 262144)


def _row_kernel(weighted, softcap, statistics=False):
    def run(m, v, dtype, device, ignored=None, smoothing=0.1):
        logits = token_chunks.buffer(random_tensor(dtype, device, 1, 1), m, v)
        losses = random_tensor(torch.float32, device, m)
        g = torch.ones((), device=device)
        criterion = Criterion(-100, smoothing, 1e-4, softcap)
        classes = class_table(random_class_weight(v, dtype, device, weighted), logits)
        found = empty_statistics(logits, statistics) if statistics else None
        return loss_and_gradient(
            logits, random_targets(m, v, device, ignored), classes, criterion, g, losses, found
        )

    return run


def _liger_row_kernel(m, v, dtype, device, ignored=0, smoothing=0.1):
    width = 16 if device == "cpu" else WIDTH
    hidden = random_tensor(dtype, device, m, width)
    weight = random_tensor(dtype, device, v, width)
    with torch.no_grad():
        liger_module("fused_linear_cross_entropy").fused_linear_cross_entropy_forward(
            hidden, weight, random_targets(m, v, device, ignored), lse_square_scale=1e-4,
            label_smoothing=smoothing, compute_gradients=True, weight_requires_grad=True,
        )  # fmt: skip


def _inputs(m, v, dtype, device):
    hidden = torch.randn((m, WIDTH), dtype=dtype, device=device)
    weight = torch.randn((v, WIDTH), dtype=dtype, device=device) * WIDTH**-0.5
    return hidden, weight, torch.randint(0, v, (m,), device=device)


def _min_bytes(m, v, e):
    return 2 * m * (-(-v * e // 16) * 16) + 12 * m + 4


def _chunk_account(v):
    found = token_chunks.account(8192, WIDTH, v, itemsize=2)
    return {
        "chunk_tokens": found.tokens,
        "chunk_mib": found.buffer_bytes >> 20,
        "moved_gib": round(found.moved_bytes / 2**30, 1),
        "weight_share": round(found.weight_share, 2),
    }


CASES = OperatorCases(
    workloads={
        "linear_cross_entropy": loss_workload(
            "linear_cross_entropy", _row_kernel, _min_bytes,
            excluded_args=("G",), narrow=3, weighted=(False,), account=_chunk_account,
            statistics=False,
        ),
        "linear_cross_entropy_weighted": loss_workload(
            "linear_cross_entropy_streamed", _row_kernel, _min_bytes,
            excluded_args=("WEIGHT", "WEIGHT_SUM", "G"), weighted=(True,), varies=("rows",),
        ),
    },
    bench={
        "linear_cross_entropy": BenchCase(
            VOCABULARY, _inputs, 2, lambda h, w, t: kernels.linear_cross_entropy(h, w, t),
            lambda h, w, t: F.cross_entropy(F.linear(h, w), t),
            lambda h, w, t: liger_function("LigerFusedLinearCrossEntropyFunction")(h, w, t)[0],
        )
    },
    liger={"linear_cross_entropy": LigerLaunch(_liger_row_kernel)},
    table=(
        TableRows(("linear_cross_entropy",), ROWS_IN_REGISTERS, rows_in_vectors, odd=True),
        TableRows(("linear_cross_entropy_weighted",), (ANY,), twice_read_tiles, odd=True),
    ),
)  # fmt: skip
