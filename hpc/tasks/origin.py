"""Where a candidate comes from, taken from the frozen spec of its run."""

from __future__ import annotations

from pathlib import Path

from hpc.jobs.spec import JobSpec
from serving.artifact.layout import Origin


def origin_of(spec: JobSpec, out_dir: Path) -> Origin:
    """The lineage of the candidate at `runs/<run>/candidate`."""
    return Origin(
        task=spec.task,
        run=out_dir.resolve().parent.name,
        spec_digest=spec.digest,
        source_digest=spec.source.digest,
        dataset={
            "name": spec.dataset.name,
            "digest": spec.dataset.digest,
            "path": spec.dataset.path,
        },
    )
