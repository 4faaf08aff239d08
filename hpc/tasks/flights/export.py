"""A trained flights model as a candidate: ONNX, transform, golden examples, reference shares."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from hpc.jobs.spec import JobSpec
from hpc.tasks.candidate import candidate_of
from hpc.tasks.flights.evaluate import auc, log_loss
from hpc.tasks.onnx_export import export_onnx
from hpc.tasks.serve_config import FlightsServe, serve_config
from serving.artifact.golden import GoldenExample, build_example
from serving.artifact.layout import fresh_version, write_candidate, write_version
from serving.artifact.table import read_split
from serving.artifact.tensors import TensorSpec
from serving.runtime.features import Category
from serving.runtime.flights_model import FlightsModel
from serving.runtime.flights_transform import FlightsTransform
from serving.runtime.reference import CONFIDENCE, fit_reference
from serving.triton.model_config import TritonConfig, config_pbtxt

ATOL, RTOL = 1e-5, 1e-4  # another CPU or another batch size sums in another order


class Probability(nn.Module):
    """The served network: (B, C) ids and (B, N) numbers -> (B, 1) chances."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, categories: Tensor, numbers: Tensor) -> Tensor:
        return torch.sigmoid(self.model(categories, numbers)).unsqueeze(1)


def export(model: nn.Module, cfg: DictConfig, spec: JobSpec, out_dir: Path) -> Path:
    """See `hpc.tasks.Task.export`. `metrics` are those of the exported package on validation."""
    dataset, out_dir = spec.dataset.folder, Path(out_dir)
    serve: FlightsServe = serve_config(FlightsServe, cfg)
    version = fresh_version(out_dir)
    try:
        write_version(version, {"transform.json": dataset / "transform.json"})
        _write_onnx(model, version)
        served = FlightsModel.load(version)
        validation, late, _ = read_split(dataset / "validation.parquet")
        chances = served(validation)["late_probability"][:, 0].astype(np.float64)
        train, _, _ = read_split(dataset / "train.parquet")
        confidence = served(train)["late_probability"][:, 0]
        config = triton_config(serve, served.transform)
        metrics = {
            "auc": auc(chances, late),
            "log_loss": log_loss(chances, late),
            "base_rate": float(late.mean()),
        }
        return write_candidate(
            out_dir,
            version=version,
            candidate=candidate_of(spec, out_dir, version, config, metrics),
            config=config_pbtxt(config),
            examples=golden_examples(served, validation),
            reference=fit_reference(served.transform, train, {CONFIDENCE: confidence}),
        )
    finally:
        shutil.rmtree(version, ignore_errors=True)


def triton_config(serve: FlightsServe, transform: FlightsTransform) -> TritonConfig:
    """One named tensor per raw column, batched."""
    return TritonConfig(
        model=serve.model,
        inputs=tuple(TensorSpec(one.name, one.dtype, (-1, 1)) for one in transform.features),
        outputs=(TensorSpec("late_probability", "FP32", (-1, 1)),),
        max_batch_size=serve.max_batch_size,
        preferred_batch_size=serve.preferred_batch_size,
        queue_delay_us=serve.queue_delay_us,
        instances=serve.instances,
        parameters={"threads": str(serve.threads)},
    )


def golden_examples(served: FlightsModel, rows: dict[str, np.ndarray]) -> list[GoldenExample]:
    """Real rows alone and as a batch, then the edges: unknown words, nothing known, limits."""
    count = len(next(iter(rows.values())))
    picked = np.linspace(0, count - 1, 6).astype(int)
    requests = [_take(rows, [row]) for row in picked] + [_take(rows, list(picked))]
    first = _take(rows, [int(picked[2])])
    unknown, missing, extreme = dict(first), dict(first), dict(first)
    for feature in served.transform.features:
        name = feature.name
        if isinstance(feature, Category):
            if feature.dtype == "BYTES":
                unknown[name] = np.array([[b"never seen"]], dtype=object)
                if feature.nullable:
                    missing[name] = np.array([[b""]], dtype=object)
        else:
            if feature.nullable:
                missing[name] = np.array([[np.nan]], dtype=np.float32)
            extreme[name] = np.full_like(first[name], feature.high)
    requests += [unknown, missing, extreme]
    return [build_example(request, served(request), ATOL, RTOL) for request in requests]


def _take(rows: dict[str, np.ndarray], which: list[int]) -> dict[str, np.ndarray]:
    taken = {name: column[which].reshape(-1, 1) for name, column in rows.items()}
    return {
        name: np.array([[one.encode()] for one in column[:, 0]], dtype=object)
        if column.dtype == object
        else column
        for name, column in taken.items()
    }


def _write_onnx(model: nn.Module, version: Path) -> None:
    network = Probability(model.float().cpu().eval())
    transform = FlightsModel.transform_of(version)
    draw = torch.Generator().manual_seed(0)

    def random_rows(count: int) -> dict[str, Tensor]:
        ids = [torch.randint(size, (count,), generator=draw) for size in transform.vocabulary_sizes]
        numbers = torch.randn(count, transform.number_columns, generator=draw)
        return {"categories": torch.stack(ids, dim=1), "numbers": numbers}

    export_onnx(
        network,
        [random_rows(count) for count in (7, 1, 64)],
        version / "model.onnx",
        outputs=["late_probability"],
        dynamic={"categories": {0: "batch"}, "numbers": {0: "batch"}},
    )
