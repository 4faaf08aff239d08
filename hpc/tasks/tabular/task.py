"""The tabular task: rows of categories and numbers, and what one column of them will be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hpc.models.build import build_model, check_model
from hpc.tasks.dataset import read_transform
from hpc.tasks.serve import BatchedServe
from serving.runtime.tabular_transform import KIND, load_transform

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hpc.tasks.micro_batches import MicroBatches
    from serving.artifact.lineage import Lineage


@dataclass(frozen=True)
class TabularTask:
    """Learn a tabular dataset's target from its features; see `hpc.tasks.task.Task`.

    The kind of target is the dataset's. The model takes `categories` int64 (B, C) and
    `numbers` (B, N), and gives (B, outputs): a logit, the logits of the classes, or the target in
    standard deviations from its mean.
    """

    unit: ClassVar[str] = "rows"
    sizes: ClassVar[tuple[str, ...]] = ("vocabularies", "numbers", "outputs")

    name: str
    """Of the task, in run names, MLflow and gates."""
    dataset: str
    """Name of the prepared dataset, of kind `tabular`."""
    serve: BatchedServe

    def check(self, model: Mapping[str, Any], dataset: Path) -> None:
        """See `Task.check`."""
        read_transform(dataset, KIND, type(self).__name__)
        check_model(model, self.sizes, self.name)

    def build_model(self, model: Mapping[str, Any], dataset: Path) -> nn.Module:
        """See `Task.build_model`. The objective of the dataset's target travels with the model."""
        from hpc.tasks.tabular.objective import objective_of

        transform = load_transform(Path(dataset) / "transform.json")
        objective = objective_of(transform.target)
        made = build_model(
            model,
            {
                "vocabularies": transform.vocabulary_sizes,
                "numbers": transform.number_columns,
                "outputs": objective.outputs,
            },
        )
        made.objective = objective  # type: ignore[assignment]  # DeepSpeed's engine shows it too
        return made

    def batches(
        self, dataset: Path, split: str, micro_batches: MicroBatches
    ) -> Iterator[dict[str, Tensor]]:
        """See `Task.batches`: `categories`, `numbers` and `target`."""
        from hpc.tasks.tabular.data import batches

        return batches(dataset, split, micro_batches)

    def loss(self, model: Any, batch: dict[str, Tensor]) -> Tensor:
        """Mean loss of the target's kind, in fp32 whatever the model computes in.

        Cross-entropy in nats, or squared error in variances of the target.
        """
        output = model(batch["categories"], batch["numbers"])
        return model.objective.loss(output.float(), batch["target"])

    def unit_count(self, batch: dict[str, Tensor]) -> int:
        """Rows of the batch."""
        return len(batch["target"])

    def evaluate(self, model: nn.Module, dataset: Path) -> dict[str, float]:
        """See `Task.evaluate` and `hpc.tasks.metrics` for the metrics of each kind of target."""
        from hpc.tasks.tabular.data import evaluate

        return evaluate(model, dataset)

    def export(self, model: nn.Module, dataset: Path, lineage: Lineage, out_dir: Path) -> Path:
        """See `Task.export`. `metrics` are those of the exported package on validation."""
        from hpc.tasks.tabular.export import export

        return export(self, model, Path(dataset), lineage, Path(out_dir))
