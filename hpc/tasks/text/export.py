"""A trained language model as a candidate: ONNX, tokenizer, golden examples, reference shares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hpc.tasks.candidate import finish_candidate, new_version
from hpc.tasks.dataset import read_transform
from hpc.tasks.onnx_export import export_onnx
from hpc.tasks.text.data import read_tokens
from hpc.tasks.text.evaluate import leading_tokens, text_metrics
from hpc.tasks.text.task import KIND, TextServe, TextTask
from serving.artifact.golden import GoldenExample, build_example
from serving.artifact.lineage import Lineage
from serving.artifact.tensors import TensorSpec
from serving.runtime.reference import token_reference
from serving.runtime.text_model import CONTEXT, TextModel
from serving.triton.model_config import TritonConfig

RUNTIME = "lockgate_runtime.text_model.TextModel"
REFERENCE_TOKENS = 1_000_000  # of the training split; more does not move a share
ATOL, RTOL = 1e-2, 1e-4  # `nats` is a sum over the text; another CPU sums in another order
MARGIN = 0.01  # logits; a closer call between two tokens could go the other way on another CPU
EXAMPLES = 8
NEW_TOKENS = 12


class TextLogits(nn.Module):
    """The served network: tokens int64 (1, T) -> logits fp32 (1, T, V)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(tokens)


def export(
    task: TextTask, model: nn.Module, dataset: Path, lineage: Lineage, out_dir: Path
) -> Path:
    """See `hpc.tasks.task.Task.export`."""
    config = triton_config(task.serve)
    files = {name: dataset / name for name in ("transform.json", "tokenizer.json")}
    vocabulary = read_transform(dataset, KIND, type(task).__name__)["vocab_size"]
    with new_version(out_dir, RUNTIME, files) as version:
        _write_onnx(model, vocabulary, task.context, version)
        threads = {"threads": str(torch.get_num_threads())}
        served = TextModel.load(version, {**config.parameters, **threads})
        tokens, text_bytes = leading_tokens(dataset, "validation", task.eval_tokens)
        train = np.asarray(read_tokens(dataset, "train")[:REFERENCE_TOKENS])
        return finish_candidate(
            out_dir,
            version,
            task=task.name,
            lineage=lineage,
            config=config,
            metrics=text_metrics(served.nats(tokens.tolist()), len(tokens), text_bytes),
            examples=golden_examples(served, read_tokens(dataset, "validation")),
            reference=token_reference(train, served.vocabulary),
        )


def triton_config(serve: TextServe) -> TritonConfig:
    """One text a request; the runtime's limits travel as parameters."""
    return TritonConfig(
        model=serve.model,
        inputs=(TensorSpec("text", "BYTES", (1,)), TensorSpec("max_new_tokens", "INT32", (1,))),
        outputs=(
            TensorSpec("completion", "BYTES", (1,)),
            TensorSpec("nats", "FP64", (1,)),
            TensorSpec("tokens", "INT32", (1,)),
        ),
        instances=serve.instances,
        parameters={
            "threads": str(serve.threads),
            "max_text_bytes": str(serve.max_text_bytes),
            "max_new_tokens": str(serve.max_new_tokens),
        },
    )


def golden_examples(served: TextModel, validation: np.ndarray) -> list[GoldenExample]:
    """Real prompts, each continued up to the first close call between two tokens, then the edges:
    one byte, other alphabets, a text longer than the context, nothing but line breaks.
    """
    requests: list[tuple[str, int]] = []
    place = 0
    while len(requests) < EXAMPLES - 4 and place + 1024 < len(validation):
        prompt = served.tokenizer.decode(validation[place : place + 24].tolist()).strip()
        place += 1024
        if prompt and "�" not in prompt:
            requests.append((prompt, _clear_tokens(served, prompt)))
    requests += [("of the", 0)] * (EXAMPLES - 4 - len(requests))  # a split too short for prompts
    longer = served.tokenizer.decode(validation[: served.context + 40].tolist())
    requests += [("W", 0), ("naïve Ωmega — 漢字 🙂", 0), (longer, 0), ("\n\n", 0)]
    return [_answered(served, text, new_tokens) for text, new_tokens in requests]


def _write_onnx(model: nn.Module, vocabulary: int, context: int, version: Path) -> None:
    draw = torch.Generator().manual_seed(0)

    def random_tokens(length: int) -> dict[str, Tensor]:
        return {"tokens": torch.randint(vocabulary, (1, length), generator=draw)}

    export_onnx(
        TextLogits(model.float().cpu().eval()),
        [random_tokens(length) for length in (7, 1, 2, min(33, context), context)],
        version / "model.onnx",
        outputs=["logits"],
        dynamic={"tokens": {1: "length"}},
        metadata={CONTEXT: str(context)},
    )


def _clear_tokens(served: TextModel, prompt: str) -> int:
    """The number of tokens that follow `prompt` before a close call."""
    margins = served.generate(served.tokenizer.encode(prompt).ids, NEW_TOKENS).margins
    return next((place for place, margin in enumerate(margins) if margin < MARGIN), NEW_TOKENS)


def _answered(served: TextModel, text: str, new_tokens: int) -> GoldenExample:
    request = {
        "text": np.array([text.encode()], dtype=object),
        "max_new_tokens": np.array([new_tokens], dtype=np.int32),
    }
    return build_example(request, served(request), ATOL, RTOL)
