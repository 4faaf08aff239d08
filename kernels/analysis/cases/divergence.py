"""Cases of kernels/ops/loss/divergence_row.py, the row kernel of linear_kl and linear_jsd, and of
linear_dpo, which has no kernel of its own."""

from dataclasses import replace

import torch
import torch.nn.functional as F

import kernels
from kernels.analysis.candidates import twice_read_tiles
from kernels.analysis.case import (
    VOCABULARY,
    BenchCase,
    OperatorCases,
    TableRows,
    Workload,
    random_tensor,
)
from kernels.analysis.liger import liger_module
from kernels.launch import token_chunks
from kernels.launch.config import ANY
from kernels.ops.loss.divergence_row import Divergence, divergence_ref, value_and_gradient
from kernels.ops.loss.linear_dpo import linear_dpo_ref

WIDTH = 4096  # hidden size before an output layer
ANSWER = 512  # tokens of an answer, where there are as many


def _row_kernel(divergence):
    def run(m, v, dtype, device):
        empty = random_tensor(dtype, device, 1, 1)
        student, teacher = (token_chunks.buffer(empty, m, v) for _ in range(2))
        kept = torch.ones(m, dtype=torch.bool, device=device)
        losses, g = random_tensor(torch.float32, device, m), torch.ones((), device=device)
        return value_and_gradient(student, teacher, kept, divergence, g, losses)

    return run


def _inputs(m, v, dtype, device):
    hidden, teacher = torch.randn((2, m, WIDTH), dtype=dtype, device=device)
    weight, other = torch.randn((2, v, WIDTH), dtype=dtype, device=device) * WIDTH**-0.5
    return hidden, weight, teacher, other


def _torch_kl(h, w, t, tw):
    log_q, log_p = F.linear(h, w).log_softmax(-1), F.linear(t, tw).log_softmax(-1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def _liger_jsd(h, w, t, tw):
    return liger_module("fused_linear_jsd").LigerFusedLinearJSDFunction.apply(h, w, t, tw)


def _answers(m, v, dtype, device):
    answers = 2 * max(1, m // (2 * ANSWER))
    hidden = torch.randn((answers, max(1, m // answers), WIDTH), dtype=dtype, device=device)
    weight = torch.randn((v, WIDTH), dtype=dtype, device=device) * WIDTH**-0.5
    return hidden, weight, torch.randint(0, v, hidden.shape[:-1], device=device)


def _min_bytes(m, v, e):
    return 3 * m * (-(-v * e // 16) * 16) + 5 * m


JSD = Workload(
    "linear_divergence", VOCABULARY, _row_kernel(Divergence("jsd", 2.0)), _min_bytes,
    excluded_args=("G",), narrow=3,
)  # fmt: skip
CASES = OperatorCases(
    workloads={
        "linear_kl": replace(
            JSD, run=_row_kernel(Divergence("forward", 2.0)),
            variants=(_row_kernel(Divergence("reverse", 2.0)),),
        ),
        "linear_jsd": JSD,
    },
    bench={
        "linear_kl": BenchCase(
            VOCABULARY, _inputs, 2, lambda *x: kernels.linear_kl(*x), _torch_kl
        ),
        "linear_jsd": BenchCase(
            VOCABULARY, _inputs, 2, lambda *x: kernels.linear_jsd(*x),
            lambda h, w, t, tw: divergence_ref(
                F.linear(h, w), F.linear(t, tw), Divergence("jsd")
            ).mean(),
            _liger_jsd,
        ),
        "linear_dpo": BenchCase(
            VOCABULARY, _answers, 2, lambda *x: kernels.linear_dpo(*x, None),
            lambda h, w, t: linear_dpo_ref(h, w, t, None),
        ),
    },
    table=(TableRows(("linear_jsd", "linear_kl"), (ANY,), twice_read_tiles, odd=True),),
)  # fmt: skip
