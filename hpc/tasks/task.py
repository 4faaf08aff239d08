"""The interface of a task: what is learned from which dataset, and how it is served.

A task is a frozen dataclass that `task._target_` names. Its fields are the keys of the YAML; its
module imports no torch before a method is called, so that a wrong key is refused at submit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hpc.tasks.micro_batches import MicroBatches
    from serving.artifact.lineage import Lineage


@runtime_checkable
class Task(Protocol):
    """The interface of a task to training, export and submit. `dataset` is a published folder."""

    name: str
    """Of the task, in run names, MLflow and gates."""
    dataset: str
    """Name of the dataset, as `lockgate data prepare` published it."""
    unit: str
    """The unit in which a batch is counted: rows or tokens."""
    sizes: tuple[str, ...]
    """Names of the sizes that `build_model` gives the model's config, such as `vocabulary`."""

    def check(self, model: Mapping[str, Any], dataset: Path) -> None:
        """Raise `ConfigError` unless task, `model` (the values of `model.*`) and dataset fit.

        It builds nothing; with Lockgate's own plug-ins it imports no torch.
        """
        ...

    def build_model(self, model: Mapping[str, Any], dataset: Path) -> nn.Module:
        """A fresh model on the CPU in fp32, sized for the dataset (its vocabularies).

        Its initial weights follow torch's global seed. Raises `ConfigError`.
        """
        ...

    def batches(
        self, dataset: Path, split: str, micro_batches: MicroBatches
    ) -> Iterator[dict[str, Tensor]]:
        """Endless batches of `micro_batches.size` rows of CPU tensors for its rank.

        Item i is decided by `micro_batches` alone, so an iterator that starts at step n goes on
        exactly where another stopped after n items. Or a loader with a state of its own,
        torchdata's `state_dict` and `load_state_dict`: it may end, and is then begun again, and
        its state is saved and restored with each checkpoint, for as many ranks as before.
        """
        ...

    def loss(self, model: Any, batch: dict[str, Tensor]) -> Tensor:
        """Scalar mean loss of the batch; `model` may be wrapped by DeepSpeed."""
        ...

    def unit_count(self, batch: dict[str, Tensor]) -> int:
        """The size of the batch in `unit`."""
        ...

    def evaluate(self, model: nn.Module, dataset: Path) -> dict[str, float]:
        """Metrics on the validation split, on this rank alone. Restores the model's mode."""
        ...

    def export(self, model: nn.Module, dataset: Path, lineage: Lineage, out_dir: Path) -> Path:
        """Write the candidate into `out_dir` (new, or replaced whole) and return it.

        `lineage` is the origin of the candidate. Raises `ExportRefused` when the model does
        not export to ONNX, or ONNX and torch disagree; `out_dir` is then as it was.
        """
        ...
