"""The divergences' row kernel: what it moves, and chances of nothing."""

import pytest
import torch
import torch.nn.functional as F

import kernels
from kernels.analysis.cases import WORKLOADS
from kernels.analysis.interpreter import Meter
from kernels.ops.loss.divergence_row import Divergence, divergence_ref

PASSES = {"linear_kl": 2, "linear_jsd": 3}


@pytest.mark.parametrize("name", list(PASSES))
def test_later_reads_come_from_cache(name, meter):
    """Of two rows of 32,001 in bf16, within an A100's share of L2 for each program."""
    work, rows, size = WORKLOADS[name], 2, 32_001
    with Meter(near_bytes=40 * 2**20 // 108) as cached:
        work.run(rows, size, torch.bfloat16, "cpu")
    assert cached.bytes(work.excluded_args) <= work.minimum(rows, size, 2)
    again = sum(count for argument, count in cached.near.items() if argument != "G")
    assert again == (PASSES[name] - 1) * 2 * rows * (-(-size // 8) * 8) * 2


@pytest.mark.parametrize("mode", ["triton", "torch"])
def test_a_class_without_a_chance(mode, elsewhere):
    """It adds nothing where neither model has it, its limit where one of them has."""
    kernels.use(mode)
    weight = torch.tensor([[0.0], [1.0], [-torch.inf]])  # of a hidden state of 1
    one = torch.ones(2, 1)
    for student, teacher in ((weight, weight + 0.5), (weight[[0, 2, 1]], weight[[1, 2, 0]])):
        leaf = student.clone().requires_grad_()
        for call in (
            lambda h, w, *x: kernels.linear_kl(h, w, *x),
            kernels.linear_jsd,
            lambda h, w, *x: kernels.linear_kl(h, w, *x, reverse=True),
        ):
            loss = call(one, leaf, one, teacher)
            assert loss.isfinite() and torch.autograd.grad(loss, leaf)[0].isfinite().all()
    here, gone = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [-torch.inf]])
    assert kernels.linear_kl(one, gone, one, here) == torch.inf
    assert kernels.linear_kl(one, here, one, gone).isfinite()
    assert kernels.linear_jsd(one, gone, one, here).isfinite()


def test_the_specification_is_torchs(elsewhere):
    x, y = torch.randn(2, 5, 7, dtype=torch.float64)
    q, p = (logits.div(2.0).log_softmax(-1) for logits in (x, y))
    assert_same = torch.testing.assert_close
    assert_same(
        divergence_ref(x, y, Divergence("forward", 2.0)),
        F.kl_div(q, p, reduction="none", log_target=True).sum(-1),
    )
    assert_same(
        divergence_ref(x, y, Divergence("reverse", 2.0)),
        F.kl_div(p, q, reduction="none", log_target=True).sum(-1),
    )
    m = torch.log(0.25 * p.exp() + 0.75 * q.exp())
    halves = (F.kl_div(m, a, reduction="none", log_target=True).sum(-1) for a in (p, q))
    of_p, of_q = halves
    assert_same(divergence_ref(x, y, Divergence("jsd", 2.0, 0.25)), 0.25 * of_p + 0.75 * of_q)


def test_no_token_that_counts(elsewhere):
    h, w = torch.randn(3, 4, requires_grad=True), torch.randn(9, 4, requires_grad=True)
    loss = kernels.linear_kl(h, w, h.detach(), w.detach(), kept=torch.zeros(3, dtype=torch.bool))
    assert loss == 0 and not any(g.any() for g in torch.autograd.grad(loss, (h, w)))
    none = kernels.linear_jsd(h[:0], w, h[:0].detach(), w.detach())
    assert none == 0
