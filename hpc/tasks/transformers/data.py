"""Labelled texts as token ids, batches of them, and a classifier's metrics on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from hpc.tasks.dataset import read_transform
from hpc.tasks.metrics import multiclass_metrics
from hpc.tasks.micro_batches import MicroBatches, batch_rows
from serving.artifact.splits import read_examples
from serving.runtime.labels import softmax
from serving.runtime.text_classifier import KIND, load_tokenizer, token_arrays

BATCH = 64  # texts of one forward pass in evaluation


@dataclass(frozen=True)
class Texts:
    """One split: texts [rows] as objects, label ids int64 [rows]."""

    tokenizer: Tokenizer
    texts: np.ndarray
    labels: np.ndarray

    def tokens(self, rows: np.ndarray | slice) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask` (B, T) of `rows`, padded to the longest of them."""
        arrays = token_arrays(self.tokenizer, self.texts[rows].tolist())
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def read_texts(dataset: Path, split: str) -> Texts:
    """Read a split, with the dataset's tokenizer as serving opens it."""
    transform = read_transform(dataset, KIND, "TransformersTask")
    examples = read_examples(dataset, split)
    path = Path(dataset) / "tokenizer.json"
    tokenizer = load_tokenizer(path, transform["max_tokens"], transform["pad_id"])
    return Texts(tokenizer, np.asarray(examples.inputs["text"]), np.asarray(examples.target))


def vocabulary_size(dataset: Path) -> int:
    """Tokens of the dataset's tokenizer, special ones included."""
    return Tokenizer.from_file(str(Path(dataset) / "tokenizer.json")).get_vocab_size()


def batches(dataset: Path, split: str, micro_batches: MicroBatches) -> Iterator[dict[str, Tensor]]:
    """See `hpc.tasks.task.Task.batches`. Texts are tokenised as they come."""
    split_texts = read_texts(dataset, split)
    count = len(split_texts.labels)
    for rows in batch_rows(count, micro_batches):
        labels = torch.from_numpy(split_texts.labels[rows])
        yield {**split_texts.tokens(rows), "labels": labels}


def evaluate(model: nn.Module, dataset: Path) -> dict[str, float]:
    """`accuracy`, `log_loss` (nats) and `base_accuracy` on the validation split."""
    split_texts = read_texts(dataset, "validation")
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    parts = []
    with torch.no_grad():
        for start in range(0, len(split_texts.labels), BATCH):
            tokens = split_texts.tokens(slice(start, start + BATCH))
            found = model(**{name: tensor.to(device) for name, tensor in tokens.items()})
            parts.append(softmax(found.logits.float().cpu().numpy()))
    model.train(was_training)
    return multiclass_metrics(np.concatenate(parts).astype(np.float64), split_texts.labels)
