"""Weights split over two ranks: the numbers are those of one process that has them whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hpc.jobs.run.folder import Run
from hpc.jobs.run.operators import operator_rows, read_operators
from hpc.jobs.spec.config import train_config
from hpc.jobs.spec.job_spec import read_spec
from hpc.optim.schedule import Rates
from hpc.tasks.micro_batches import MicroBatches
from hpc.train import metrics_log, randomness

pytestmark = pytest.mark.slow

EXACT = ["zero_stage=3", "precision=fp32", "steps=6", "checkpoint_interval=6"]


def losses(run: Path) -> list[float]:
    return [
        line["loss"] for line in metrics_log.read_metrics(run / "metrics.jsonl") if "loss" in line
    ]


def without_deepspeed(run: Path) -> tuple[list[float], torch.nn.Module]:
    """The losses and the model of a plain torch loop over the batches of both ranks."""
    spec = read_spec(run / "spec.yaml")
    config, dataset = train_config(spec.config), spec.dataset.folder
    told, task = config.run, config.task
    randomness.seed_generators(told.seed)
    model = task.build_model(config.model, dataset)
    optimizer = config.optim.build(model)
    rates = Rates(optimizer, config.schedule, told.steps)
    size = told.micro_batch_size
    orders = [MicroBatches(size, rank, 2, told.seed) for rank in range(2)]
    ranks = [task.batches(dataset, "train", order) for order in orders]
    curve = []
    for step in range(told.steps):
        rates.set(step)
        loss = torch.stack([task.loss(model, next(batches)) for batches in ranks]).mean()
        optimizer.zero_grad()
        loss.backward()
        if told.gradient_clipping:
            torch.nn.utils.clip_grad_norm_(model.parameters(), told.gradient_clipping)
        optimizer.step()
        curve.append(loss.item())
    return curve, model


def assert_the_ranks_counted_their_operators(run: Path, log: str) -> None:
    found, problems = read_operators(Run(run))
    assert problems == [] and [(one.rank, one.step) for one in found] == [(0, 6), (1, 6)]
    rows = {row.operator: row for row in operator_rows(found)}
    assert set(rows) == {"rms_norm", "add_rms_norm", "rope", "swiglu", "linear_cross_entropy"}
    assert {(row.backend, row.reason, row.refused) for row in rows.values()} == {
        ("torch", "no GPU", 0)
    }
    assert rows["linear_cross_entropy"].calls == 2 * 6  # a loss of each rank's every step
    assert "operators: torch (no GPU): " in log


@pytest.mark.parametrize(
    ("clipping", "tied"),
    [
        ("0.1", "true"),
        ("0", "false"),
        pytest.param("0", "true", marks=pytest.mark.full),
        pytest.param("0.1", "false", marks=pytest.mark.full),
    ],
)
def test_it_trains_as_one_process_does(
    new_run: Callable[..., Path], attempt: Callable, tied: str, clipping: str
) -> None:
    words = [f"model.tied={tied}", f"gradient_clipping={clipping}", "optim.lr=0.01"]
    run = new_run("split", *EXACT, "optim=adamw", *words)
    ended = attempt(run)
    assert ended.codes == [0, 0], ended.log
    assert_the_ranks_counted_their_operators(run, ended.log)
    expected, model = without_deepspeed(run)
    assert expected[-1] < expected[0] - 0.1
    # Two ranks add in another order than one: some roundoffs of fp32, 6e-8, in each sum.
    torch.testing.assert_close(losses(run), expected, rtol=1e-5, atol=0)
    saved = load_file(run / "checkpoints" / "00000006" / "model.safetensors")
    assert saved.keys() == model.state_dict().keys()  # which is how the candidate is made of it
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(saved[name], weight, rtol=1e-3, atol=1e-4)


def test_muon_trains_as_in_zero_2_and_goes_on_where_it_stopped(
    new_run: Callable[..., Path], attempt: Callable
) -> None:
    muon = [*EXACT, "optim=muon", "optim.schedule.momentum_warmup_steps=6"]
    runs = {
        "whole": new_run("whole", *muon),
        "stopped": new_run("stopped", *muon),
        "zero 2": new_run("zero2", *muon, "zero_stage=2"),
    }
    assert attempt(runs["stopped"], ("stop", "3")).codes == [0, 0]
    for run in runs.values():
        ended = attempt(run)
        assert ended.codes == [0, 0], ended.log
    assert losses(runs["stopped"]) == losses(runs["whole"])
    # Another momentum, which DeepSpeed keeps elsewhere in ZeRO-3, would be 2e-4 off.
    torch.testing.assert_close(losses(runs["whole"]), losses(runs["zero 2"]), rtol=1e-5, atol=0)
