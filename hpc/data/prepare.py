"""Prepare a dataset: check sources, build the files in staging, write lineage, publish."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hpc.data import lineage as lineages
from hpc.data.dataset import BuildResult, Dataset, Progress
from hpc.data.lineage import DatasetLineage
from hpc.data.publish import Published, publish, staging_folder
from hpc.data.recipe import recipe_digest
from hpc.data.refusal import DataRefused
from serving.artifact.digest import file_sha256, tree_digest


def prepare(dataset: Dataset, data_root: Path, progress: Progress = print) -> Published:
    """Build and publish `dataset` under `data_root`.

    Returns at once, with state `unchanged`, when the current dataset was made by the same recipe
    and is intact. Raises `DataRefused` on bad input; the previous dataset is then as it was.
    """
    with staging_folder(data_root, dataset.name) as staging:
        sources = dataset.sources()
        recipe = recipe_digest(dataset, sources)
        kept = _already_made(data_root, dataset.name, recipe) if sources else None
        if kept is not None:
            progress(f"{dataset.name}@{kept.digest[:12]} was made by the same recipe and is intact")
            path = lineages.current_dataset(data_root, dataset.name)
            return Published(dataset.name, path, kept, "unchanged")
        if sources:
            names = ", ".join(source.path for source in sources.values())
            progress(f"sources: {names}, digests checked")
        result = dataset.build(staging, progress)
        source = {
            "name": dataset.source_name(),
            "version": dataset.source_version(),
            "files": [asdict(file) for file in sources.values()],
        }
        return publish(staging, _lineage(dataset.name, staging, result, source, recipe))


def _lineage(
    name: str, staging: Path, result: BuildResult, source: Mapping[str, Any], recipe: str
) -> DatasetLineage:
    splits = {
        split: {**described, "sha256": _digest(staging / described["file"])}
        for split, described in result.splits.items()
    }
    return DatasetLineage(
        name=name,
        digest=tree_digest(staging, exclude=(lineages.FILE,)),
        source=source,
        schema=dict(result.schema),
        transform_digest=file_sha256(staging / "transform.json"),
        splits=splits,
        notes=dict(result.notes),
        recipe=recipe,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _digest(path: Path) -> str:
    return tree_digest(path) if path.is_dir() else file_sha256(path)


def _already_made(data_root: Path, name: str, recipe: str) -> DatasetLineage | None:
    try:
        dataset = lineages.current_dataset(data_root, name)
        return (
            lineages.verify_dataset(dataset)
            if lineages.read_lineage(dataset).recipe == recipe
            else None
        )
    except DataRefused:
        return None  # nothing there, or damaged: build it
