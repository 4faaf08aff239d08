"""One rank of two that take the first step of each run under ZeRO-3, run as a program.

    RANK=0 WORLD_SIZE=2 ... python first_step.py RUN_DIR [RUN_DIR...]

Rank 0 leaves the whole gradients, and the weights after the step, in each RUN_DIR/step.pt.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from hpc.jobs.spec.config import train_config
from hpc.jobs.spec.job_spec import read_spec
from hpc.optim.schedule import Rates
from hpc.tasks.micro_batches import MicroBatches
from hpc.train import distributed, engine, randomness


class FirstStep:
    """What the first step of a run begins with: the model, and the micro-batch of each rank."""

    def __init__(self, run_dir: Path) -> None:
        spec = read_spec(run_dir / "spec.yaml")
        self.config, self.dataset = train_config(spec.config), spec.dataset.folder

    def model(self) -> nn.Module:
        """Weights without the zeros of a new model, behind which every gradient is zero too."""
        randomness.seed_generators(self.config.run.seed)
        model = self.config.task.build_model(self.config.model, self.dataset)
        for weight in model.parameters():
            nn.init.normal_(weight, std=0.3)
        return model

    def loss(self, model: nn.Module, rank: int) -> Tensor:
        run = self.config.run
        order = MicroBatches(run.micro_batch_size, rank, 2, run.seed)
        return self.config.task.loss(
            model, next(self.config.task.batches(self.dataset, "train", order))
        )

    def set_rate(self, optimizer: torch.optim.Optimizer) -> None:
        Rates(optimizer, self.config.schedule, self.config.run.steps).set(0)


def take(run_dir: Path, world: distributed.World) -> None:
    from deepspeed.utils import safe_get_full_grad

    first = FirstStep(run_dir)
    model = engine.start(first.config, first.model(), world)
    first.set_rate(model.optimizer)
    model.backward(first.loss(model, world.rank))
    gradients = {name: safe_get_full_grad(weight).view(engine.parameter_shape(weight)).clone()
                 for name, weight in model.module.named_parameters()}  # fmt: skip
    model.step()
    weights = engine.whole_weights(model)
    if world.leads:
        torch.save({"gradients": gradients, "weights": weights}, run_dir / "step.pt")
    world.barrier()


if __name__ == "__main__":
    torch.set_num_threads(1)
    with distributed.join() as world:
        for name in sys.argv[1:]:
            take(Path(name), world)
    sys.stdout.flush()
    os._exit(0)
