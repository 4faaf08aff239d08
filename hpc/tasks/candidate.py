"""candidate.json of an exported model, from the frozen spec of its run and the exported files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hpc.jobs.spec import JobSpec
from serving.artifact.candidate import Candidate
from serving.artifact.digest import file_sha256
from serving.artifact.layout import REQUIRES
from serving.artifact.lineage import Lineage
from serving.triton.model_config import TritonConfig


def candidate_of(
    spec: JobSpec,
    out_dir: Path,
    version: Path,
    config: TritonConfig,
    metrics: Mapping[str, float],
) -> Candidate:
    """The candidate at `out_dir`, which is `runs/<run>/candidate`, of the files in `version`."""
    lineage = Lineage(
        run=out_dir.resolve().parent.name,
        spec_digest=spec.digest,
        source_digest=spec.source.digest,
        dataset=spec.dataset,
    )
    return Candidate(
        model=config.model,
        task=spec.task,
        lineage=lineage,
        transform_digest=file_sha256(version / "transform.json"),
        inputs=config.inputs,
        outputs=config.outputs,
        metrics=dict(metrics),
        requires=REQUIRES,
    )
