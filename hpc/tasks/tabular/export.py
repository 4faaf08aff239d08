"""A trained tabular model as a candidate: ONNX, transform, golden examples, reference shares."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hpc.tasks.candidate import finish_candidate, new_version
from hpc.tasks.classes import without_close_calls
from hpc.tasks.onnx_export import export_onnx
from hpc.tasks.serve import batched_config
from hpc.tasks.tabular.objective import Objective, objective_of
from hpc.tasks.tabular.task import TabularTask
from serving.artifact.golden import GoldenExample, build_example
from serving.artifact.lineage import Lineage
from serving.artifact.splits import read_examples
from serving.artifact.tensors import TensorSpec
from serving.runtime.features import Category, is_optional
from serving.runtime.reference import CONFIDENCE, fit_reference
from serving.runtime.tabular_model import TabularModel
from serving.runtime.tabular_transform import TabularTransform, Target, load_transform
from serving.triton.model_config import TritonConfig

RUNTIME = "lockgate_runtime.tabular_model.TabularModel"
RTOL = 1e-4  # another CPU or another batch size sums in another order
ALONE = 6  # rows that are golden examples each alone, and all in one batch
UNKNOWN_TEXT = b"never seen"
UNKNOWN_NUMBER = np.iinfo(np.int32).max


class ServedNetwork(nn.Module):
    """The served network: (B, C) ids and (B, N) numbers -> `output` (B, K), final."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, categories: Tensor, numbers: Tensor) -> Tensor:
        return self.objective.served(self.model(categories, numbers))


def export(
    task: TabularTask, model: nn.Module, dataset: Path, lineage: Lineage, out_dir: Path
) -> Path:
    """See `hpc.tasks.task.Task.export`."""
    transform = load_transform(dataset / "transform.json")
    objective = objective_of(transform.target)
    with new_version(out_dir, RUNTIME, {"transform.json": dataset / "transform.json"}) as version:
        _write_onnx(ServedNetwork(model.float().cpu().eval(), objective), transform, version)
        served = TabularModel.load(version)
        validation = read_examples(dataset, "validation")
        train = read_examples(dataset, "train")
        values = served_values(served, validation.inputs)
        confidence = served_values(served, train.inputs).max(axis=1)
        return finish_candidate(
            out_dir,
            version,
            task=task.name,
            lineage=lineage,
            config=triton_config(task, transform),
            metrics=objective.metrics(values, validation.target),
            examples=golden_examples(served, validation.inputs, objective.atol),
            reference=fit_reference(transform, train.inputs, {CONFIDENCE: confidence}),
        )


def triton_config(task: TabularTask, transform: TabularTransform) -> TritonConfig:
    """One named tensor per raw column, batched; nullable columns may be left out."""
    inputs = [
        TensorSpec(one.name, one.dtype, (-1, 1), is_optional(one)) for one in transform.features
    ]
    return batched_config(task.serve, inputs, output_specs(transform.target))


def output_specs(target: Target) -> tuple[TensorSpec, ...]:
    """The served outputs of a target, as `TabularModel` gives them."""
    if target.classes is None:
        return (TensorSpec(target.output, "FP32", (-1, 1)),)
    return (
        TensorSpec("probabilities", "FP32", (-1, len(target.classes))),
        TensorSpec("label", "BYTES", (-1, 1)),
    )


def served_values(served: TabularModel, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """fp32 [rows, K]: the served chances or values."""
    (numbers,) = [one for one in served(inputs).values() if one.dtype.kind == "f"]
    return numbers


def golden_examples(
    served: TabularModel, rows: Mapping[str, np.ndarray], atol: float
) -> list[GoldenExample]:
    """Real rows alone and as a batch, then the edges: unknown words, nothing known, both limits."""
    count = len(next(iter(rows.values())))
    picked = np.linspace(0, count - 1, ALONE).astype(int)
    requests = [_rows_as_sent(rows, [row]) for row in picked]
    requests.append(_rows_as_sent(rows, list(picked)))
    middle = _rows_as_sent(rows, [int(picked[2])])
    unknown, missing, lowest, highest = (dict(middle) for _ in range(4))
    for feature in served.transform.features:
        name, like = feature.name, middle[feature.name]
        if isinstance(feature, Category):
            text = feature.dtype == "BYTES"
            unknown[name] = np.full_like(like, UNKNOWN_TEXT if text else UNKNOWN_NUMBER)
        else:
            lowest[name] = np.full_like(like, feature.low)
            highest[name] = np.full_like(like, feature.high)
        if is_optional(feature):
            missing[name] = np.full_like(like, b"" if feature.dtype == "BYTES" else np.nan)
    requests += [unknown, missing, lowest, highest]
    return [
        build_example(request, without_close_calls(served(request)), atol, RTOL)
        for request in requests
    ]


def _rows_as_sent(rows: Mapping[str, np.ndarray], which: list[int]) -> dict[str, np.ndarray]:
    """The rows `which` of raw columns as the API takes them: each [B, 1], text as bytes."""
    return {name: _as_sent(column[which]).reshape(-1, 1) for name, column in rows.items()}


def _as_sent(column: np.ndarray) -> np.ndarray:
    if column.dtype != object:
        return column
    return np.array([text.encode() for text in column], dtype=object)


def _write_onnx(network: nn.Module, transform: TabularTransform, version: Path) -> None:
    draw = torch.Generator().manual_seed(0)

    def random_rows(count: int) -> dict[str, Tensor]:
        ids = [
            torch.randint(size, (count, 1), generator=draw) for size in transform.vocabulary_sizes
        ]
        nothing = torch.zeros(count, 0, dtype=torch.int64)
        numbers = torch.randn(count, transform.number_columns, generator=draw)
        return {"categories": torch.cat([nothing, *ids], dim=1), "numbers": numbers}

    export_onnx(
        network,
        [random_rows(count) for count in (7, 1, 64)],
        version / "model.onnx",
        outputs=["output"],
        dynamic={"categories": {0: "batch"}, "numbers": {0: "batch"}},
    )
