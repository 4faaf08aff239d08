"""The first step of two ranks under ZeRO-3 beside that of one process: where they differ, and why.

Each rank's gradient is a sum over its own tokens, and the average of two of them is exact in any
order, since 2 is a power of two. So the step is the same to the last bit, but for two sums:

- of a weight that is used twice, such as a tied embedding. One backward over both batches adds four
  terms in the order of its graph; two ranks add two each, and then the two sums.
- of the gradient's norm, by which it is clipped: over the ranks' parts of all weights, and not
  weight by weight. The factor that all gradients get is then one roundoff off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.hpc.train.first_step import FirstStep

pytestmark = pytest.mark.slow

ULP = torch.finfo(torch.float32).eps
RUNS = {
    "plain": ("model.tied=false", "gradient_clipping=0"),
    "tied": ("model.tied=true", "gradient_clipping=0"),
    "clipped": ("model.tied=false", "gradient_clipping=0.1"),
}


@dataclass(frozen=True)
class Step:
    """Gradients before clipping, and weights after the step, by name."""

    gradients: dict[str, Tensor]
    weights: dict[str, Tensor]


@dataclass(frozen=True)
class Steps:
    """The same first step of two ranks, and of one process in two ways: one backward of the mean
    loss, and one backward of each batch, averaged."""

    ranks: Step
    once: Step
    averaged: Step


def step_of(first: FirstStep, model: nn.Module) -> Step:
    """The step of one process from the gradients that `model` has."""
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    optimizer = first.config.optim.build(model)
    first.set_rate(optimizer)
    if limit := first.config.run.gradient_clipping:
        nn.utils.clip_grad_norm_(model.parameters(), limit)
    optimizer.step()
    return Step(gradients, {name: one.detach() for name, one in model.named_parameters()})


def once(first: FirstStep) -> Step:
    model = first.model()
    torch.stack([first.loss(model, rank) for rank in range(2)]).mean().backward()
    return step_of(first, model)


def averaged(first: FirstStep) -> Step:
    model, own = first.model(), []
    for rank in range(2):
        own.append(torch.autograd.grad(first.loss(model, rank), list(model.parameters())))
    for weight, *pair in zip(model.parameters(), *own, strict=True):
        weight.grad = (pair[0] + pair[1]) / 2
    return step_of(first, model)


@pytest.fixture(scope="module")
def steps(new_runs: Callable[..., Path], attempt_of: Callable) -> dict[str, Steps]:
    words = ["zero_stage=3", "precision=fp32", "optim=adamw", "optim.lr=0.01"]
    runs = {name: new_runs(name, *words, *more) for name, more in RUNS.items()}
    ended = attempt_of("first_step.py", *map(str, runs.values()))
    assert ended.codes == [0, 0], ended.log
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = {}
    for name, run in runs.items():
        first, saved = FirstStep(run), torch.load(run / "step.pt")
        found[name] = Steps(Step(**saved), once(first), averaged(first))
    torch.set_num_threads(threads)
    return found


def differing(some: dict[str, Tensor], others: dict[str, Tensor]) -> set[str]:
    assert some.keys() == others.keys()
    return {name for name, one in some.items() if not torch.equal(one, others[name])}


@pytest.mark.parametrize("name", RUNS)
def test_the_gradient_is_the_exact_average_of_the_ranks(steps: dict[str, Steps], name: str) -> None:
    found = steps[name]
    assert differing(found.ranks.gradients, found.averaged.gradients) == set()
    assert all(one.any() for one in found.ranks.gradients.values())


def test_without_a_shared_weight_and_clipping_the_step_is_that_of_one_process(
    steps: dict[str, Steps],
) -> None:
    found = steps["plain"]
    assert differing(found.ranks.gradients, found.once.gradients) == set()
    assert differing(found.ranks.weights, found.once.weights) == set()


def test_a_weight_that_is_used_twice_is_summed_in_another_order(steps: dict[str, Steps]) -> None:
    found = steps["tied"]
    assert differing(found.ranks.gradients, found.once.gradients) == {"embedding.weight"}
    mine, theirs = (one.gradients["embedding.weight"] for one in (found.ranks, found.once))
    assert (mine - theirs).abs().max() <= 2 * ULP * theirs.abs().max()
    weights = {name: one for name, one in found.ranks.weights.items() if name in found.once.weights}
    assert differing(weights, found.once.weights) == {"embedding.weight"}
    assert differing(weights, found.averaged.weights) == set()


def test_the_norm_is_summed_over_the_ranks_parts(steps: dict[str, Steps]) -> None:
    found = steps["clipped"]
    assert differing(found.ranks.gradients, found.once.gradients) == set()
    assert differing(found.ranks.weights, found.once.weights)
    for name, weight in found.ranks.weights.items():
        torch.testing.assert_close(weight, found.once.weights[name], rtol=2 * ULP, atol=2 * ULP)
