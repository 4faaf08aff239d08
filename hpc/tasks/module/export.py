"""A trained module as a candidate: ONNX or torch code, golden examples, reference shares."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from conf.errors import ConfigError
from hpc.tasks.candidate import finish_candidate, new_version
from hpc.tasks.module.data import Arrays, evaluate, model_outputs, parts, read_arrays
from hpc.tasks.module.task import INPUT, ModuleTask
from hpc.tasks.module.torch_layout import RUNTIME as TORCH_RUNTIME
from hpc.tasks.module.torch_layout import check_equal, required_libraries, write_module
from hpc.tasks.onnx_export import NoOnnxForm, export_onnx
from hpc.tasks.serve import batched_config
from serving.artifact.golden import GoldenExample, build_example
from serving.artifact.lineage import Lineage
from serving.artifact.tensors import TensorSpec, triton_dtype
from serving.runtime.arrays_model import ArraysModel
from serving.runtime.package import RuntimeModel
from serving.runtime.reference import output_reference
from serving.runtime.torch_model import TorchModel
from serving.triton.model_config import TritonConfig

log = logging.getLogger(__name__)

RUNTIME = "lockgate_runtime.arrays_model.ArraysModel"
ATOL_SHARE, RTOL = 1e-4, 1e-4
"""Sums of a few thousand fp32 products, in another order on another CPU, are off by some hundred
ulps of their largest terms; so the absolute part is a share of the largest output."""
ALONE = 6  # rows that are golden examples each alone, and all in one batch
REFERENCE_ROWS = 20_000  # of the training split; more does not move a share


def export(
    task: ModuleTask, model: nn.Module, dataset: Path, lineage: Lineage, out_dir: Path
) -> Path:
    """See `hpc.tasks.task.Task.export`."""
    model = model.float().cpu().eval()
    if task.serve.format == "torch":
        return _export_torch(task, model, dataset, lineage, out_dir)
    try:
        return _export_onnx(task, model, dataset, lineage, out_dir)
    except NoOnnxForm as error:
        if task.serve.format == "onnx":
            raise
        log.warning("%s. It is packaged as torch code: serving hosts need torch.", error.reason)
        return _export_torch(task, model, dataset, lineage, out_dir)


def _export_onnx(
    task: ModuleTask, model: nn.Module, dataset: Path, lineage: Lineage, out_dir: Path
) -> Path:
    with new_version(out_dir, RUNTIME, {"transform.json": dataset / "transform.json"}) as version:
        examples = _examples(read_arrays(dataset, "validation"))
        export_onnx(
            model,
            examples,
            version / "model.onnx",
            outputs=task.outputs,
            dynamic={name: {0: "batch"} for name in examples[0]},
        )
        served = ArraysModel.load(version)
        return _finish(task, model, served, dataset, lineage, out_dir, version)


def _export_torch(
    task: ModuleTask, model: nn.Module, dataset: Path, lineage: Lineage, out_dir: Path
) -> Path:
    files = {"transform.json": dataset / "transform.json"}
    with new_version(out_dir, TORCH_RUNTIME, files) as version:
        code = write_module(model, task.outputs, version)
        served = TorchModel.load(version)
        check_equal(model, served, _examples(read_arrays(dataset, "validation")))
        requires = required_libraries(model, served)
        return _finish(task, model, served, dataset, lineage, out_dir, version, code, requires)


def _finish(
    task: ModuleTask,
    model: nn.Module,
    served: RuntimeModel,
    dataset: Path,
    lineage: Lineage,
    out_dir: Path,
    version: Path,
    code: tuple[str, ...] = (),
    requires: Mapping[str, str] | None = None,
) -> Path:
    validation, train = read_arrays(dataset, "validation"), read_arrays(dataset, "train")
    return finish_candidate(
        out_dir,
        version,
        task=task.name,
        lineage=lineage,
        config=triton_config(task, model, validation),
        metrics=evaluate(task, model, dataset),
        examples=golden_examples(served, validation),
        reference=output_reference(served_shares(served, train)),
        code=code,
        requires=requires,
    )


def triton_config(task: ModuleTask, model: nn.Module, arrays: Arrays) -> TritonConfig:
    """Every input and output by name, batched, with the shape and dtype of a real row."""
    with torch.no_grad():
        found = model_outputs(model, parts(arrays.batch(slice(0, 1)), INPUT))
    if len(found) != len(task.outputs):
        raise ConfigError(
            f"task.outputs={list(task.outputs)}: the model gives {len(found)} outputs, and this "
            f"names {len(task.outputs)}"
        )
    outputs = [
        _spec(name, output.numpy()) for name, output in zip(task.outputs, found, strict=True)
    ]
    inputs = [_spec(name, array) for name, array in arrays.inputs.items()]
    return batched_config(task.serve, inputs, outputs)


def golden_examples(served: RuntimeModel, arrays: Arrays) -> list[GoldenExample]:
    """Real rows alone and as a batch, then zeros alone and twice."""
    picked = np.linspace(0, arrays.rows - 1, ALONE).astype(int)
    requests = [_rows(arrays, [row]) for row in picked] + [_rows(arrays, list(picked))]
    one = requests[0]
    for count in (1, 2):
        requests.append(
            {name: np.zeros((count, *row.shape[1:]), row.dtype) for name, row in one.items()}
        )
    answers = [served(request) for request in requests]
    largest = max(
        float(np.abs(array).max())
        for answer in answers
        for array in answer.values()
        if array.dtype.kind == "f"
    )
    return [
        build_example(request, answer, ATOL_SHARE * largest, RTOL)
        for request, answer in zip(requests, answers, strict=True)
    ]


def served_shares(served: RuntimeModel, train: Arrays) -> dict[str, np.ndarray]:
    """The training split's served outputs with few numbers a row: {name or name.i: [rows]}."""
    answers = [
        served(_rows(train, list(range(start, min(start + 256, train.rows)))))
        for start in range(0, min(train.rows, REFERENCE_ROWS), 256)
    ]
    together = {name: np.concatenate([one[name] for one in answers]) for name in answers[0]}
    flat = {name: array.reshape(len(array), -1) for name, array in together.items()}
    return {f"_{name}": array.max(axis=1) for name, array in flat.items()}


def _rows(arrays: Arrays, which: list[int]) -> dict[str, np.ndarray]:
    return {name: np.array(array[which]) for name, array in arrays.inputs.items()}


def _spec(name: str, array: np.ndarray) -> TensorSpec:
    return TensorSpec(name, triton_dtype(array.dtype), (-1, *array.shape[1:]))


def _examples(arrays: Arrays) -> list[dict[str, Tensor]]:
    """The inputs of batches of several sizes, the first of which traces."""

    def first_rows(count: int) -> dict[str, Tensor]:
        rows = np.resize(np.arange(arrays.rows), count)
        return dict(zip(arrays.inputs, parts(arrays.batch(rows), INPUT), strict=True))

    return [first_rows(count) for count in (7, 1, 64)]
