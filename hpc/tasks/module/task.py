"""The module task: tensors in, tensors out, and a criterion that compares them with the targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from conf.names import nearest
from conf.plugin import make_plugin
from hpc.data.dataset import TENSOR_NAME
from hpc.models.build import build_model, check_model
from hpc.tasks.dataset import read_transform
from hpc.tasks.metrics import BY_NAME
from hpc.tasks.serve import BatchedServe

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hpc.tasks.micro_batches import MicroBatches
    from serving.artifact.lineage import Lineage

KIND = "arrays"
INPUT, TARGET = "input.", "target."
"""Prefixes of a batch's names."""


@dataclass(frozen=True)
class ModuleServe(BatchedServe):
    """Arrays in and out."""

    format: Literal["auto", "onnx", "torch"] = "auto"
    """Of the network in the package. `torch` is the module's own code and its weights as
    safetensors, for which serving hosts need torch; `auto` is ONNX unless ONNX cannot express the
    module."""


@dataclass(frozen=True)
class ModuleTask:
    """Learn an array dataset's targets from its inputs; see `hpc.tasks.task.Task`.

    The model takes the dataset's inputs as positional arguments, in its order, each (B, ...), and
    gives one tensor (B, ...) or a tuple of them. What it gives is served.
    """

    unit: ClassVar[str] = "rows"
    sizes: ClassVar[tuple[str, ...]] = ()

    name: str
    """Of the task, in run names, MLflow and gates."""
    dataset: str
    """Name of the prepared dataset, of kind `arrays`."""
    criterion: dict  # with no type of its values: it is made when the loss is first needed
    """`_target_` of the loss: a class whose object is called with (output, target), such as
    torch.nn.CrossEntropyLoss, or with `_partial_: true` such a function. Outputs are in fp32; where
    there are several outputs or targets, they come as tuples. It gives the mean over the rows."""
    serve: ModuleServe
    outputs: tuple[str, ...] = ("output",)
    """Names of the served outputs, in the model's order."""
    metrics: tuple[str, ...] = ()
    """Validation metrics beside the loss, of the first output: accuracy, f1, rmse, mae."""

    def __post_init__(self) -> None:
        if not self.outputs or len(set(self.outputs)) != len(self.outputs):
            raise ValueError(f"outputs={list(self.outputs)}: needs names, each another one")
        for name in self.outputs:
            if not TENSOR_NAME.fullmatch(name):
                raise ValueError(
                    f"outputs={list(self.outputs)}: {name!r} cannot be a tensor's name"
                )
        for name in self.metrics:
            if name not in BY_NAME:
                raise ValueError(f"metrics={name}: no such metric. {nearest(name, BY_NAME)}")

    @cached_property
    def criterion_function(self) -> Any:
        """The class or function that `criterion` names; imports torch."""
        return make_plugin(self.criterion, "task.criterion")

    def check(self, model: Mapping[str, Any], dataset: Path) -> None:
        """See `Task.check`."""
        read_transform(dataset, KIND, type(self).__name__)
        check_model(model, self.sizes, self.name)
        self.criterion_function  # noqa: B018  its target and its keys

    def build_model(self, model: Mapping[str, Any], dataset: Path) -> nn.Module:
        """See `Task.build_model`."""
        return build_model(model, {})

    def batches(
        self, dataset: Path, split: str, micro_batches: MicroBatches
    ) -> Iterator[dict[str, Tensor]]:
        """See `Task.batches`: `input.NAME` and `target.NAME` of each of the dataset's arrays."""
        from hpc.tasks.module.data import batches

        return batches(dataset, split, micro_batches)

    def loss(self, model: Any, batch: dict[str, Tensor]) -> Tensor:
        """The criterion on the model's outputs and the batch's targets."""
        from hpc.tasks.module.data import model_outputs, parts

        outputs = model_outputs(model, parts(batch, INPUT))
        targets = parts(batch, TARGET)
        return self.criterion_function(_one_or_all(outputs), _one_or_all(targets))

    def unit_count(self, batch: dict[str, Tensor]) -> int:
        """Rows of the batch."""
        return len(next(iter(batch.values())))

    def evaluate(self, model: nn.Module, dataset: Path) -> dict[str, float]:
        """See `Task.evaluate`: `loss`, and each of `metrics`."""
        from hpc.tasks.module.data import evaluate

        return evaluate(self, model, dataset)

    def export(self, model: nn.Module, dataset: Path, lineage: Lineage, out_dir: Path) -> Path:
        """See `Task.export`. `metrics` are those of the model on validation."""
        from hpc.tasks.module.export import export

        return export(self, model, Path(dataset), lineage, Path(out_dir))


def _one_or_all(tensors: list[Tensor]) -> Any:
    return tensors[0] if len(tensors) == 1 else tuple(tensors)
