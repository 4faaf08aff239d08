"""A trained text classifier as a candidate: ONNX, tokenizer, golden examples, reference shares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hpc.tasks.candidate import finish_candidate, new_version
from hpc.tasks.classes import without_close_calls
from hpc.tasks.dataset import read_transform
from hpc.tasks.metrics import multiclass_metrics
from hpc.tasks.onnx_export import export_onnx
from hpc.tasks.serve import batched_config
from hpc.tasks.transformers.data import Texts, read_texts, vocabulary_size
from hpc.tasks.transformers.task import TransformersTask
from serving.artifact.golden import GoldenExample, build_example
from serving.artifact.lineage import Lineage
from serving.artifact.tensors import TensorSpec
from serving.runtime.reference import CONFIDENCE, output_reference
from serving.runtime.text_classifier import KIND, TextClassifier
from serving.triton.model_config import TritonConfig

RUNTIME = "lockgate_runtime.text_classifier.TextClassifier"
ATOL, RTOL = 1e-4, 1e-3  # chances; several layers of fp32 sums, in another order on another CPU
ALONE = 6  # texts that are golden examples each alone, and all in one batch
EDGES = ("W", "naïve Ωmega — 漢字 🙂", "\n\n")
SERVED = 32  # texts of one run of the package
REFERENCE_ROWS = 2_000  # of the training split; more does not move a share


class ClassifierLogits(nn.Module):
    """The served network: input_ids, attention_mask int64 (B, T) -> logits fp32 (B, labels)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


def export(
    task: TransformersTask, model: nn.Module, dataset: Path, lineage: Lineage, out_dir: Path
) -> Path:
    """See `hpc.tasks.task.Task.export`."""
    transform = read_transform(dataset, KIND, type(task).__name__)
    config = triton_config(task, len(transform["labels"]))
    files = {name: dataset / name for name in ("transform.json", "tokenizer.json")}
    with new_version(out_dir, RUNTIME, files) as version:
        _write_onnx(model, vocabulary_size(dataset), transform["max_tokens"], version)
        threads = {"threads": str(torch.get_num_threads())}
        served = TextClassifier.load(version, {**config.parameters, **threads})
        validation, train = read_texts(dataset, "validation"), read_texts(dataset, "train")
        chances = served_chances(served, validation.texts)
        confidence = served_chances(served, train.texts[:REFERENCE_ROWS]).max(axis=1)
        return finish_candidate(
            out_dir,
            version,
            task=task.name,
            lineage=lineage,
            config=config,
            metrics=multiclass_metrics(chances.astype(np.float64), validation.labels),
            examples=golden_examples(served, validation),
            reference=output_reference({CONFIDENCE: confidence}),
        )


def triton_config(task: TransformersTask, labels: int) -> TritonConfig:
    """One text a row; the runtime's limits travel as parameters."""
    return batched_config(
        task.serve,
        inputs=[TensorSpec("text", "BYTES", (-1, 1))],
        outputs=[
            TensorSpec("probabilities", "FP32", (-1, labels)),
            TensorSpec("label", "BYTES", (-1, 1)),
        ],
        parameters={"max_text_bytes": str(task.serve.max_text_bytes)},
    )


def served_chances(served: TextClassifier, texts: np.ndarray) -> np.ndarray:
    """fp32 [rows, labels] of the package on `texts` [rows]."""
    starts = range(0, len(texts), SERVED)
    return np.concatenate(
        [served(_request(texts[start : start + SERVED]))["probabilities"] for start in starts]
    )


def golden_examples(served: TextClassifier, validation: Texts) -> list[GoldenExample]:
    """Real texts alone and as a batch, then the edges: a byte, other alphabets, too long a text."""
    texts = validation.texts[np.linspace(0, len(validation.texts) - 1, ALONE).astype(int)].tolist()
    longest = " ".join(texts) * (1 + served.max_text_bytes // (1 + len(" ".join(texts))))
    longest = longest.encode()[: min(served.max_text_bytes, 8192)].decode("utf-8", "ignore")
    requests = [[text] for text in texts] + [texts] + [[text] for text in (*EDGES, longest)]
    return [
        build_example(request, without_close_calls(served(request)), ATOL, RTOL)
        for request in map(_request, requests)
    ]


def _request(texts: list[str] | np.ndarray) -> dict[str, np.ndarray]:
    return {"text": np.array([[text.encode()] for text in texts], dtype=object)}


def _write_onnx(model: nn.Module, vocabulary: int, max_tokens: int, version: Path) -> None:
    draw = torch.Generator().manual_seed(0)

    def random_tokens(rows: int, length: int) -> dict[str, Tensor]:
        ids = torch.randint(vocabulary, (rows, length), generator=draw)
        mask = torch.ones(rows, length, dtype=torch.int64)
        mask[0, (length + 1) // 2 :] = 0  # a text shorter than its batch
        return {"input_ids": ids, "attention_mask": mask}

    shapes = [(3, min(7, max_tokens)), (1, 2), (2, max_tokens)]
    free = {0: "batch", 1: "length"}
    export_onnx(
        ClassifierLogits(model.float().cpu().eval()),
        [random_tokens(rows, length) for rows, length in shapes],
        version / "model.onnx",
        outputs=["logits"],
        dynamic={"input_ids": free, "attention_mask": free},
    )
