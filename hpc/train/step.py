"""One optimizer step of a rank: its micro-batches forward and backward, then the update."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from hpc.tasks.task import Task
from hpc.train.step_account import BACKWARD, DATA_WAIT, FORWARD, OPTIMIZER, StepAccount


def optimizer_step(
    task: Task,
    model: Any,
    batches: Iterator[dict[str, Tensor]],
    micro_steps: int,
    device: torch.device,
    account: StepAccount,
) -> tuple[Tensor, int]:
    """One update of `model`, a DeepSpeed engine, from `micro_steps` micro-batches.

    Returns the mean loss, fp32 and still on the device, so that nothing waits for it here, and the
    rows or tokens that were seen.
    """
    losses, seen = [], 0
    account.start()
    for _ in range(micro_steps):
        batch = {
            name: values.to(device, non_blocking=True) for name, values in next(batches).items()
        }
        account.mark(DATA_WAIT)
        loss = task.loss(model, batch)
        account.mark(FORWARD)
        model.backward(loss)
        account.mark(BACKWARD)
        model.step()  # DeepSpeed updates at the last micro-step
        account.mark(OPTIMIZER)
        losses.append(loss.detach())
        seen += task.unit_count(batch)
    return torch.stack(losses).float().mean(), seen


def gradient_norm(model: Any) -> float | None:
    """The global norm of what the last update was made of, before clipping; None without ZeRO.

    Under ZeRO that is the gradient, and Muon's orthogonal update of it. Waits for the device.
    """
    norm = model.get_global_grad_norm()
    return None if norm is None else float(norm)
