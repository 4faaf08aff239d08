"""A trained language model as a candidate: ONNX, tokenizer, golden examples, reference shares."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from hpc.jobs.spec import JobSpec
from hpc.tasks.candidate import candidate_of
from hpc.tasks.lm.data import read
from hpc.tasks.lm.evaluate import leading
from hpc.tasks.onnx_export import export_onnx
from hpc.tasks.serve_config import LmServe, serve_config
from serving.artifact.golden import GoldenExample, build_example
from serving.artifact.layout import fresh_version, write_candidate, write_version
from serving.artifact.tensors import TensorSpec
from serving.runtime.lm_model import CONTEXT, LmModel
from serving.runtime.reference import MISSING
from serving.triton.model_config import TritonConfig, config_pbtxt

ATOL, RTOL = 1e-2, 1e-4  # `nats` is a sum over the text; another CPU sums in another order
MARGIN = 0.01  # logits; a closer call between two tokens could go the other way on another CPU
EXAMPLES = 8
NEW_TOKENS = 12


class Logits(nn.Module):
    """The served network: tokens int64 (1, T) -> logits fp32 (1, T, V)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(tokens)


def export(model: nn.Module, cfg: DictConfig, spec: JobSpec, out_dir: Path) -> Path:
    """See `hpc.tasks.Task.export`. `metrics` are those of the exported package on validation."""
    dataset, out_dir = spec.dataset.folder, Path(out_dir)
    serve: LmServe = serve_config(LmServe, cfg)
    config = triton_config(serve)
    version = fresh_version(out_dir)
    try:
        files = {name: dataset / name for name in ("transform.json", "tokenizer.json")}
        write_version(version, files)
        _write_onnx(model, int(cfg.model.context), version)
        threads = {"threads": str(torch.get_num_threads())}
        served = LmModel.load(version, {**config.parameters, **threads})
        tokens, text_bytes = leading(cfg, dataset, "validation")
        nats = served.nats(tokens.tolist())
        metrics = {
            "bits_per_byte": nats / math.log(2) / text_bytes,
            "nats_per_token": nats / len(tokens),
        }
        return write_candidate(
            out_dir,
            version=version,
            candidate=candidate_of(spec, out_dir, version, config, metrics),
            config=config_pbtxt(config),
            examples=golden_examples(served, read(dataset, "validation")),
            reference=reference(served, dataset),
        )
    finally:
        shutil.rmtree(version, ignore_errors=True)


def triton_config(serve: LmServe) -> TritonConfig:
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


def golden_examples(served: LmModel, validation: np.ndarray) -> list[GoldenExample]:
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


def reference(served: LmModel, dataset: Path) -> dict:
    """Shares of the commonest tokens on the training split, for whoever watches what is asked."""
    tokens = np.asarray(read(dataset, "train")[:1_000_000])
    counts = np.bincount(tokens, minlength=served.vocabulary)
    cuts = np.searchsorted(np.cumsum(counts) / counts.sum(), np.arange(1, 10) / 10)
    edges = sorted({int(cut) for cut in cuts if cut > 0})
    places = np.searchsorted(edges, tokens, side="right")
    shares = np.bincount(places, minlength=len(edges) + 1) / len(tokens)
    ratios = {f"b{index:02d}": round(float(share), 8) for index, share in enumerate(shares)}
    described = {"kind": "number", "edges": edges, "ratios": {**ratios, MISSING: 0.0}}
    return {"format": 1, "rows": len(tokens), "features": {"token": described}}


def _write_onnx(model: nn.Module, context: int, version: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    vocabulary = int(model.config.vocabulary)  # type: ignore[union-attr,arg-type]

    def random_tokens(length: int) -> dict[str, Tensor]:
        return {"tokens": torch.randint(vocabulary, (1, length), generator=draw)}

    export_onnx(
        Logits(model.float().cpu().eval()),
        [random_tokens(length) for length in (7, 1, 2, min(33, context), context)],
        version / "model.onnx",
        outputs=["logits"],
        dynamic={"tokens": {1: "length"}},
        metadata={CONTEXT: str(context)},
    )


def _clear_tokens(served: LmModel, prompt: str) -> int:
    """How many tokens follow `prompt` before a close call."""
    margins = served.generate(served.tokenizer.encode(prompt).ids, NEW_TOKENS).margins
    return next((place for place, margin in enumerate(margins) if margin < MARGIN), NEW_TOKENS)


def _answered(served: LmModel, text: str, new_tokens: int) -> GoldenExample:
    request = {
        "text": np.array([text.encode()], dtype=object),
        "max_new_tokens": np.array([new_tokens], dtype=np.int32),
    }
    return build_example(request, served(request), ATOL, RTOL)
