"""Results of the losses beside the loss, lse and the correct targets, on both paths."""

from itertools import product

import pytest
import torch

import kernels
from kernels.ops.loss.criterion import LossStatistics
from kernels.ops.loss.linear_crossentropy import linear_cross_entropy_ref
from tests.kernels.interpret.operators import LAYOUTS

V, TOKENS = 45, (2, 5)  # an odd row, so that it has edges on both sides
OPTIONS = [
    {}, {"reduction": "none", "shift": True}, {"reduction": "sum", "softcap": 4.0},
    {"z_loss": 0.01, "label_smoothing": 0.1, "class_weight": torch.linspace(0.5, 2, V)},
]  # fmt: skip
TYPES = [torch.bfloat16, torch.float16, torch.float64]


def cases():
    """Each layout with one of the options in bf16; the rest is `full`."""
    for (i, layout), (j, options), dtype in product(enumerate(LAYOUTS), enumerate(OPTIONS), TYPES):
        marks = () if dtype == TYPES[0] and j == i % len(OPTIONS) else pytest.mark.full
        yield pytest.param(layout, dtype, options, marks=marks)


both_paths = pytest.mark.parametrize("mode", ["triton", "torch"])


def exact_rows(dtype: torch.dtype, layout) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden (2, 5, 6), weight (V, 6) of small whole numbers, whose products no type rounds and
    which are often equal, and targets, the argmax of about half of the logits."""
    hidden, weight = (layout(*shape, scale=2).round().to(dtype) for shape in ((*TOKENS, 6), (V, 6)))
    top = (hidden @ weight.T).argmax(-1)
    targets = torch.where(torch.rand(TOKENS) < 0.5, top, torch.randint(0, V, TOKENS))
    targets[0, 1] = -100
    return hidden, weight, targets


@both_paths
@pytest.mark.parametrize(("layout", "dtype", "options"), cases())
def test_statistics_are_those_of_the_specification(layout, dtype, options, mode, elsewhere):
    kernels.use(mode)
    hidden, weight, targets = exact_rows(dtype, layout)
    exact = linear_cross_entropy_ref(
        hidden.double(), weight.double(), targets, statistics=True, **options
    )
    logits = hidden @ weight.T
    for needs in (False, True):
        leaves = hidden.detach().requires_grad_(needs), weight.detach().requires_grad_(needs)
        for found in (
            kernels.linear_cross_entropy(*leaves, targets, statistics=True, **options),
            kernels.cross_entropy(
                logits.detach().requires_grad_(needs), targets, statistics=True, **options
            ),
        ):
            assert isinstance(found, LossStatistics)
            assert found.loss.requires_grad == needs
            assert not found.lse.requires_grad and not found.correct.requires_grad
            assert torch.equal(found.correct, exact.correct), "ties go to the first"
            torch.testing.assert_close(found.lse.double(), exact.lse, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(found.loss.double(), exact.loss, rtol=1e-5, atol=1e-5)


@both_paths
def test_they_cost_nothing_of_the_gradients(mode):
    kernels.use(mode)
    hidden, weight, targets = exact_rows(torch.float64, LAYOUTS[0])
    leaves = hidden.requires_grad_(), weight.requires_grad_()
    for reduction in ("mean", "none"):
        losses = [
            kernels.linear_cross_entropy(*leaves, targets, reduction=reduction),
            kernels.linear_cross_entropy(
                *leaves, targets, reduction=reduction, statistics=True
            ).loss,
        ]
        first, second = (torch.autograd.grad(loss.sum(), leaves) for loss in losses)
        torch.testing.assert_close(first, second)
    kernels.use("triton")
    kernels.cross_entropy(hidden @ weight.T, targets)


ROWS = {
    "the first of two": ([1.0, 7.0, 7.0], 1, True),
    "the second of two": ([1.0, 7.0, 7.0], 2, False),
    "-inf before it": ([-torch.inf, 1.0, 0.0], 1, True),
    "+inf": ([torch.inf, 1.0, torch.inf], 0, True),
    "-inf alone": ([-torch.inf] * 3, 0, False),
    "a NaN after it": ([3.0, 1.0, torch.nan], 0, False),
    "a NaN itself": ([torch.nan, 1.0, 2.0], 0, False),
    "beyond the classes": ([1.0, 2.0, 3.0], 3 + (1 << 32), False),
    "ignored": ([1.0, 2.0, 3.0], -100, False),
}


@pytest.mark.parametrize("name", list(ROWS))
@both_paths
def test_what_is_correct(name, mode, elsewhere):
    row, target, correct = ROWS[name]
    kernels.use(mode)
    if mode == "torch" and target > 3:
        return  # raises on the CPU
    # far from the edges of the row too: the rest is less than all of it
    for front in (0, 61):
        logits = torch.tensor([*[-torch.inf] * front, *row])[None]
        targets = torch.tensor([target + front if target >= 0 else target])
        found = kernels.cross_entropy(logits, targets, statistics=True)
        assert found.correct.tolist() == [correct]
        hidden, weight = torch.eye(1), logits.T.contiguous()
        if logits.isfinite().all():
            found = kernels.linear_cross_entropy(
                hidden, weight.requires_grad_(), targets, statistics=True
            )
            assert found.correct.tolist() == [correct]


def test_without_tokens():
    kernels.cross_entropy(torch.randn(1, 3), torch.tensor([1]))
    found = kernels.cross_entropy(torch.randn(0, 3), torch.empty(0, dtype=torch.int64),
                                  statistics=True)  # fmt: skip
    assert found.loss == 0 and found.lse.shape == found.correct.shape == (0,)
