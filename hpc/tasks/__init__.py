"""Tasks: what is learned from which dataset. The training loop knows nothing else about a task.

    task = load("flights")
    model = task.model(cfg, dataset)
    for batch in task.batches(cfg, dataset, "train", rank, world_size, seed, start):
        loss = task.loss(model, batch)

A task of your own is a package beside `flights` and `lm` with the six functions of `Task`.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from torch import Tensor, nn

    from hpc.jobs.spec import JobSpec

HERE = Path(__file__).parent


class Task(Protocol):
    """What a task module offers. `cfg` is the whole training config, `dataset` a folder."""

    def model(self, cfg: DictConfig, dataset: Path) -> nn.Module:
        """A fresh model on the CPU in fp32, sized for the dataset (its vocabularies).

        Its initial weights follow torch's global seed.
        """
        ...

    def batches(
        self,
        cfg: DictConfig,
        dataset: Path,
        split: str,
        rank: int,
        world_size: int,
        seed: int,
        start_step: int,
    ) -> Iterator[dict[str, Tensor]]:
        """Endless batches of `cfg.micro_batch_size` CPU tensors for this rank.

        Item i is decided by (seed, start_step + i, rank, world_size) alone, so an iterator that
        starts at n goes on exactly where another stopped after n items. `start_step` counts
        micro-batches: optimizer steps * gradient_accumulation_steps.
        """
        ...

    def loss(self, model: Any, batch: dict[str, Tensor]) -> Tensor:
        """Scalar mean loss of the batch, in nats; `model` may be wrapped by DeepSpeed."""
        ...

    def evaluate(self, model: nn.Module, cfg: DictConfig, dataset: Path) -> dict[str, float]:
        """Metrics on the validation split, on this rank alone. Restores the model's mode."""
        ...

    def export(self, model: nn.Module, cfg: DictConfig, spec: JobSpec, out_dir: Path) -> Path:
        """Write the candidate into `out_dir` (new, or replaced whole) and return it.

        Raises `hpc.tasks.onnx_export.ExportRefused` when ONNX and torch disagree; `out_dir` is then
        as it was.
        """
        ...


def names() -> list[str]:
    """Every task there is."""
    return sorted(path.parent.name for path in HERE.glob("*/__init__.py"))


def load(name: str) -> Task:
    """The task called `name`; imports torch. Raises ValueError with the nearest names."""
    if name not in names():
        near = get_close_matches(name, names(), n=3) or names()
        raise ValueError(f"there is no task {name!r}. Nearest: {', '.join(near)}")
    return cast(Task, import_module(f"hpc.tasks.{name}"))
