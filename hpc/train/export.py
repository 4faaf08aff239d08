"""The end of a run: whole fp32 weights become an evaluated model and a candidate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

import kernels
from hpc.jobs.spec.config import TrainConfig
from hpc.jobs.spec.job_spec import JobSpec
from serving.artifact.lineage import Lineage


def evaluate_and_export(
    config: TrainConfig,
    spec: JobSpec,
    weights: Mapping[str, Tensor],
    candidate: Path,
    evaluated: Callable[[Mapping[str, float]], None],
    while_evaluating: Callable[[nn.Module], AbstractContextManager[object]] = nullcontext,
) -> None:
    """Write the candidate at `candidate`, which is `runs/<run>/candidate`, of trained `weights`.

    What is exported is evaluated: the fp32 weights, not the rounded ones that trained. Its metrics
    on the validation split go to `evaluated` before the export. What `while_evaluating` raises in
    between ends it. Raises `ExportRefused`; the candidate that was there is then as it was.
    """
    task, dataset = config.task, spec.dataset.folder
    model = task.build_model(config.model, dataset)
    model.load_state_dict(dict(weights))
    model.eval()
    lineage = Lineage(
        run=candidate.resolve().parent.name,
        spec_digest=spec.digest,
        source_digest=spec.source.digest,
        dataset=spec.dataset,
        project_digest=spec.project.digest if spec.project else None,
    )
    before = kernels.use("torch")  # ONNX has plain torch operations only
    try:
        with torch.no_grad():
            with while_evaluating(model):
                metrics = task.evaluate(model, dataset)
            evaluated(metrics)
            task.export(model, dataset, lineage, candidate)
    finally:
        kernels.use(before)
