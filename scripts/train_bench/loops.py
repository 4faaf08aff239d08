"""The loops beside ours: DeepSpeed and PyTorch as their tutorials have them, and HF's Trainer.

All train the same model on the same batches with the same optimizer, and each is a generator that
has done one more optimizer step at each `next`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hpc.jobs.spec.config import TrainConfig
from hpc.tasks.micro_batches import MicroBatches
from hpc.train.engine import deepspeed_config

Batches = Iterator[dict[str, Tensor]]
Loop = Callable[[TrainConfig, Path], Iterator[None]]
LOGGED = 10
"""Steps between two looks at the loss, which waits for it; as in our run."""


def bare_deepspeed(config: TrainConfig, dataset: Path) -> Iterator[None]:
    """`backward` and `step` of an engine under the same DeepSpeed config; the group is ours."""
    import deepspeed

    model = fresh_model(config, dataset)
    settings = deepspeed_config(config.run, config.optim, bf16=False, world_size=1)
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=config.optim.build(model), config=settings, dist_init_required=False
    )
    engine.train()
    for step, batch in enumerate(batches(config, dataset)):
        loss = engine(batch["tokens"], batch["targets"])
        engine.backward(loss)
        engine.step()
        if step % LOGGED == 0:
            loss.item()
        yield


def bare_torch(config: TrainConfig, dataset: Path) -> Iterator[None]:
    """Forward, backward, clip, step, zero: PyTorch alone."""
    model = fresh_model(config, dataset)
    optimizer = config.optim.build(model)
    model.train()
    for step, batch in enumerate(batches(config, dataset)):
        loss = model(batch["tokens"], batch["targets"])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.run.gradient_clipping)
        optimizer.step()
        optimizer.zero_grad()
        if step % LOGGED == 0:
            loss.item()
        yield


def hugging_face(config: TrainConfig, dataset: Path) -> Iterator[None]:
    """transformers' Trainer over the same model and batches, in a thread that stops at each step.

    Raises ImportError where `accelerate` is missing, without which there is no Trainer.
    """
    import accelerate  # noqa: F401
    from torch.utils.data import IterableDataset
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = fresh_model(config, dataset)

        def forward(self, tokens: Tensor, targets: Tensor) -> dict[str, Tensor]:
            return {"loss": self.model(tokens, targets)}

    class Rows(IterableDataset):
        def __iter__(self) -> Batches:
            return batches(config, dataset)

    turn, done = threading.Semaphore(0), threading.Semaphore(0)
    failed: list[BaseException] = []

    class Pause(TrainerCallback):
        def on_step_end(self, *arguments: Any, **named: Any) -> None:
            done.release()
            turn.acquire()

    wrapped = Wrapped()
    arguments = TrainingArguments(
        output_dir="unused", max_steps=10**9, per_device_train_batch_size=1, use_cpu=True,
        logging_steps=LOGGED, save_strategy="no", report_to=[], disable_tqdm=True,
        max_grad_norm=config.run.gradient_clipping, remove_unused_columns=False,
        dataloader_num_workers=0, log_level="error", lr_scheduler_type="constant",
    )  # fmt: skip
    trainer = Trainer(
        model=wrapped, args=arguments, train_dataset=Rows(), callbacks=[Pause()],
        data_collator=lambda rows: rows[0],
        optimizers=(config.optim.build(wrapped), None),
    )  # fmt: skip

    def run() -> None:
        turn.acquire()
        try:
            trainer.train()
        except BaseException as error:  # noqa: BLE001  # raised where the next step is wanted
            failed.append(error)
            done.release()

    threading.Thread(target=run, daemon=True).start()
    while True:
        turn.release()
        done.acquire()
        if failed:
            raise failed[0]
        yield


LOOPS: dict[str, Loop] = {
    "bare DeepSpeed": bare_deepspeed,
    "bare PyTorch": bare_torch,
    "Hugging Face Trainer": hugging_face,
}


def fresh_model(config: TrainConfig, dataset: Path) -> nn.Module:
    """The model of `config`, with the weights that our run begins with."""
    torch.manual_seed(config.run.seed)
    return config.task.build_model(config.model, dataset)


def batches(config: TrainConfig, dataset: Path) -> Batches:
    """The batches of our run, from the first on."""
    order = MicroBatches(config.run.micro_batch_size, 0, 1, config.run.seed)
    return config.task.batches(dataset, "train", order)
