"""The transformers task: texts and the label of each, for a Hugging Face sequence classifier."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hpc.models.build import build_model, check_model
from hpc.tasks.dataset import read_transform
from hpc.tasks.serve import BatchedServe
from serving.runtime.text_classifier import KIND, MAX_TEXT_BYTES

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hpc.tasks.micro_batches import MicroBatches
    from serving.artifact.lineage import Lineage


@dataclass(frozen=True)
class ClassifierServe(BatchedServe):
    """Texts are rows, batched; a batch is padded to its longest text."""

    max_batch_size: int = 64
    """Texts of one execution."""
    max_text_bytes: int = MAX_TEXT_BYTES
    """A longer text is refused; tokens past the dataset's `max_tokens` are cut off."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_text_bytes < 1:
            raise ValueError(f"max_text_bytes={self.max_text_bytes}: must be at least 1")


@dataclass(frozen=True)
class TransformersTask:
    """Learn the labels of a labelled text dataset; see `hpc.tasks.task.Task`.

    The model takes `input_ids` and `attention_mask`, int64 (B, T), and gives an object with
    `logits` (B, labels), as `transformers` models for sequence classification do.
    """

    unit: ClassVar[str] = "rows"
    sizes: ClassVar[tuple[str, ...]] = ("labels", "vocabulary", "pad_id")

    name: str
    """Of the task, in run names, MLflow and gates."""
    dataset: str
    """Name of the prepared dataset, of kind `labelled-text`."""
    serve: ClassifierServe

    def check(self, model: Mapping[str, Any], dataset: Path) -> None:
        """See `Task.check`."""
        read_transform(dataset, KIND, type(self).__name__)
        check_model(model, self.sizes, self.name)

    def build_model(self, model: Mapping[str, Any], dataset: Path) -> nn.Module:
        """See `Task.build_model`."""
        from hpc.tasks.transformers.data import vocabulary_size

        transform = read_transform(dataset, KIND, type(self).__name__)
        sizes = {
            "labels": tuple(transform["labels"]),
            "vocabulary": vocabulary_size(dataset),
            "pad_id": transform["pad_id"],
        }
        return build_model(model, sizes)

    def batches(
        self, dataset: Path, split: str, micro_batches: MicroBatches
    ) -> Iterator[dict[str, Tensor]]:
        """See `Task.batches`: `input_ids`, `attention_mask` (B, T) and `labels` (B,), int64."""
        from hpc.tasks.transformers.data import batches

        return batches(dataset, split, micro_batches)

    def loss(self, model: Any, batch: dict[str, Tensor]) -> Tensor:
        """Mean cross-entropy of the label, in nats and fp32."""
        from torch.nn import functional

        found = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        return functional.cross_entropy(found.logits.float(), batch["labels"])

    def unit_count(self, batch: dict[str, Tensor]) -> int:
        """Texts of the batch."""
        return len(batch["labels"])

    def evaluate(self, model: nn.Module, dataset: Path) -> dict[str, float]:
        """See `Task.evaluate`: `accuracy`, `log_loss` and `base_accuracy`."""
        from hpc.tasks.transformers.data import evaluate

        return evaluate(model, dataset)

    def export(self, model: nn.Module, dataset: Path, lineage: Lineage, out_dir: Path) -> Path:
        """See `Task.export`. `metrics` are those of the exported package on validation."""
        from hpc.tasks.transformers.export import export

        return export(self, model, Path(dataset), lineage, Path(out_dir))
