"""`python -m hpc.jobs.spec.trial_build`: build what a config names, or fail with a sentence.

Standard input is {"config": a training config as plain values, "dataset": folder, "initial": the
`InitialWeights` of init_from or null}. The model is built on torch's meta device, where tensors
have a shape and no numbers, and a batch goes through its loss there. Exit code 0 when everything
fits; otherwise 2, with the sentence on standard output.
See https://docs.pytorch.org/docs/stable/meta.html
"""

from __future__ import annotations

import json
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from conf import repo_root
from conf.errors import ConfigError
from conf.plugin import OWN_PACKAGES
from conf.schema import TARGET
from hpc.jobs.spec.ancestry import InitialWeights
from hpc.jobs.spec.config import TrainConfig, train_config
from hpc.jobs.spec.weights_header import check_shapes, weight_shapes
from hpc.tasks.micro_batches import MicroBatches

MISTAKE = 2
ROWS = 2  # of the batch that goes through the loss
COMPILED = ("deepspeed.ops.",)
"""Optimizers whose construction compiles C++ for this machine; the job's may be another one."""


def main() -> int:
    """Check what standard input describes."""
    answer = os.dup(1)
    os.dup2(2, 1)  # what the plug-ins print is not our output
    content = json.load(sys.stdin)
    try:
        weights = content.get("initial")
        initial = InitialWeights(**weights) if weights else None
        check(OmegaConf.create(content["config"]), Path(content["dataset"]), initial)
    except ConfigError as error:
        os.write(answer, f"{error}\n".encode())
        return MISTAKE
    return 0


def check(config: Any, dataset: Path, initial: InitialWeights | None = None) -> None:
    """Build task, model and optimizer. Raises `ConfigError` for whatever goes wrong in them.

    The weights `initial` are compared with the model's, by name and shape.
    """
    from hpc.models.precision import check_precision  # torch: only in this process
    from hpc.models.recomputation import recompute_blocks

    training: TrainConfig = _named("task", lambda: train_config(config))
    _named("task", lambda: training.task.check(training.model, dataset))
    model = _named("model", lambda: _on_meta(training, dataset))
    check_precision(training.run.precision, model)
    if initial is not None:
        wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        check_shapes(weight_shapes(Path(initial.path)), wanted, initial.words)
    if training.run.activation_checkpointing:
        recompute_blocks(model)
    if not str(config.optim[TARGET]).startswith(COMPILED):
        _named("optim", lambda: training.optim.build(model))
    _named("task", lambda: _one_loss(training, model, dataset))


def _named(key: str, build: Callable[[], Any]) -> Any:
    """The result of `build`. Raises `ConfigError` for whatever it raises, with the user's line."""
    try:
        return build()
    except ConfigError as error:
        raise ConfigError(f"{error}{_place(error.__cause__)}") from error
    except Exception as error:
        words = " ".join(str(error).split()) or "it gave no message"
        reason = f"{type(error).__name__}: {words[:400]}"
        raise ConfigError(f"{key}: {reason}{_place(error)}") from error


def _on_meta(training: TrainConfig, dataset: Path) -> Any:
    import torch

    try:
        with torch.device("meta"):
            return training.task.build_model(training.model, dataset)
    except (RuntimeError, NotImplementedError) as error:
        if not _of_meta(error):
            raise
        return training.task.build_model(training.model, dataset)  # a constructor that computes


def _one_loss(training: TrainConfig, model: Any, dataset: Path) -> None:
    """Send one small batch of the training split through the loss."""
    task, device = training.task, next(iter(model.parameters())).device
    first = MicroBatches(ROWS, rank=0, world_size=1, seed=training.run.seed)
    batch = next(task.batches(dataset, "train", first))
    try:
        loss = task.loss(model, {name: tensor.to(device) for name, tensor in batch.items()})
    except (RuntimeError, NotImplementedError) as error:
        if _of_meta(error):  # a forward that depends on numbers cannot run without them
            return
        raise
    if loss.ndim:
        raise ConfigError(
            f"task: the loss of a batch has the shape {list(loss.shape)}; it must be one number, "
            "the mean over the rows"
        )


def _of_meta(error: BaseException) -> bool:
    return "meta" in str(error).lower()


def _place(error: BaseException | None) -> str:
    """` (file:line)` of the innermost frame that is neither a library's nor Lockgate's."""
    if error is None:
        return ""
    libraries = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "stdlib")}
    others = [*(repo_root().resolve() / name for name in OWN_PACKAGES), *libraries]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_file() and not any(path.resolve().is_relative_to(one) for one in others):
            return f" ({path.name}:{frame.lineno})"
    return ""


if __name__ == "__main__":
    sys.exit(main())
