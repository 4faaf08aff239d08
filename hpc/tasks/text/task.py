"""The text task: the next token of a text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from conf.errors import ConfigError
from hpc.models.build import build_model, check_model
from hpc.tasks.dataset import read_transform
from hpc.tasks.serve import Serve

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hpc.tasks.micro_batches import MicroBatches
    from serving.artifact.lineage import Lineage

KIND = "text"


@dataclass(frozen=True)
class TextServe(Serve):
    """A text is a request of its own: no batching."""

    max_text_bytes: int = 65_536
    """A longer text is refused."""
    max_new_tokens: int = 256
    """A request for more is refused."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_text_bytes < 1:
            raise ValueError(f"max_text_bytes={self.max_text_bytes}: must be at least 1")
        if self.max_new_tokens < 0:
            raise ValueError(f"max_new_tokens={self.max_new_tokens}: must be 0 or more")


@dataclass(frozen=True)
class TextTask:
    """Learn to continue a tokenised text; see `hpc.tasks.task.Task`.

    The model takes tokens int64 (B, T) and gives logits (B, T, V); with targets (B, T) as second
    argument it gives the mean loss in nats.
    """

    unit: ClassVar[str] = "tokens"
    sizes: ClassVar[tuple[str, ...]] = ("vocabulary",)

    name: str
    """Of the task, in run names, MLflow and gates."""
    dataset: str
    """Name of the prepared dataset, of kind `text`."""
    context: int
    """Tokens of a training sequence, and of a window in which a text is scored."""
    serve: TextServe
    eval_tokens: int = 65_536
    """Tokens of the validation split in one evaluation; 0 for all of it."""

    def __post_init__(self) -> None:
        if self.context < 1:
            raise ValueError(f"context={self.context}: must be at least 1")
        if self.eval_tokens < 0:
            raise ValueError(f"eval_tokens={self.eval_tokens}: must be 0 or more")

    def check(self, model: Mapping[str, Any], dataset: Path) -> None:
        """See `Task.check`."""
        tokens = read_transform(dataset, KIND, type(self).__name__)["vocab_size"]
        made = check_model(model, self.sizes, self.name)
        wanted = getattr(made, "vocabulary", None)
        if wanted not in (None, tokens):
            raise ConfigError(
                f"model.vocabulary={wanted}: the dataset's tokenizer has {tokens} tokens; train "
                f"with model.vocabulary={tokens}, or prepare with data.vocab_size"
            )

    def build_model(self, model: Mapping[str, Any], dataset: Path) -> nn.Module:
        """See `Task.build_model`."""
        tokens = read_transform(dataset, KIND, type(self).__name__)["vocab_size"]
        return build_model(model, {"vocabulary": tokens})

    def batches(
        self, dataset: Path, split: str, micro_batches: MicroBatches
    ) -> Iterator[dict[str, Tensor]]:
        """See `Task.batches`: `tokens` and `targets`, int64 (micro batch, context)."""
        from hpc.tasks.text.data import batches

        return batches(dataset, split, self.context, micro_batches)

    def loss(self, model: Any, batch: dict[str, Tensor]) -> Tensor:
        """Mean cross-entropy of the next token, in nats."""
        return model(batch["tokens"], batch["targets"])

    def unit_count(self, batch: dict[str, Tensor]) -> int:
        """Tokens of the batch."""
        return batch["tokens"].numel()

    def evaluate(self, model: nn.Module, dataset: Path) -> dict[str, float]:
        """See `Task.evaluate`: `bits_per_byte` and `nats_per_token`."""
        from hpc.tasks.text.evaluate import evaluate

        return evaluate(model, Path(dataset), self.context, self.eval_tokens)

    def export(self, model: nn.Module, dataset: Path, lineage: Lineage, out_dir: Path) -> Path:
        """See `Task.export`. `metrics` are those of the exported package on validation."""
        from hpc.tasks.text.export import export

        return export(self, model, Path(dataset), lineage, Path(out_dir))
