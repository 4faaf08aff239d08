"""The end of a run: whole fp32 weights, evaluated once more and exported as a candidate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

import kernels
from hpc.train.engine import whole_weights

if TYPE_CHECKING:
    from hpc.train.loop import Job


def finish(job: Job, candidate: Path) -> None:
    """Write the candidate of a trained model; collective, rank 0 does the work.

    What is exported is evaluated: the fp32 weights, not the rounded ones that trained.
    """
    weights = whole_weights(job.model)
    if job.report:
        config = job.spec.config
        model = job.task.model(config, job.dataset)
        model.load_state_dict(weights)
        model.eval()
        before = kernels.use("torch")  # ONNX knows plain torch operations only
        try:
            with torch.no_grad():
                metrics = job.task.evaluate(model, config, job.dataset)
            job.report.evaluated(job.run.steps, metrics)
            job.task.export(model, config, job.spec, candidate)
            job.report.exported(candidate)
        finally:
            kernels.use(before)
    job.world.barrier()
