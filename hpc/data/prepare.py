"""Prepare a dataset: check sources, make the files in staging, write lineage, publish."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from hpc.data import lineage as lineages
from hpc.data.config import FlightsConfig, WebsterConfig
from hpc.data.lineage import Lineage
from hpc.data.publish import Published, publish, workshop
from hpc.data.recipe import Made, recipe_digest
from hpc.data.refusal import DataRefused
from hpc.data.source import SourceFile
from serving.artifact.digest import file_sha256, tree_digest

Say = Callable[[str], None]
Config = FlightsConfig | WebsterConfig


def prepare(config: Config, data_root: Path, say: Say = print) -> Published:
    """Make and publish the dataset that `config` describes under `data_root`.

    Returns at once, with state `unchanged`, when the current dataset was made by the same recipe
    and is intact. Raises `DataRefused` on bad input; the previous dataset is then as it was.
    """
    maker = _maker(config)
    with workshop(data_root, config.name) as staged:
        sources: dict[str, SourceFile] = maker.sources(config)
        recipe = recipe_digest(config, sources)
        kept = _already_made(data_root, config.name, recipe)
        if kept is not None:
            say(f"{config.name}@{kept.digest[:12]} was made by the same recipe and is intact")
            path = lineages.current(data_root, config.name)
            return Published(config.name, path, kept, "unchanged")
        say(f"sources: {', '.join(source.path for source in sources.values())}, digests checked")
        made = maker.make(config, staged, say)
        source = {
            "name": config.source.name,
            "version": maker.source_version(config),
            "files": [asdict(file) for file in sources.values()],
        }
        return publish(staged, _lineage(config.name, staged, made, source, recipe))


def _lineage(
    name: str, staged: Path, made: Made, source: Mapping[str, Any], recipe: str
) -> Lineage:
    splits = {
        split: {**described, "sha256": file_sha256(staged / described["file"])}
        for split, described in made.splits.items()
    }
    return Lineage(
        name=name,
        digest=tree_digest(staged, exclude=(lineages.FILE,)),
        source=source,
        schema=dict(made.schema),
        transform_digest=file_sha256(staged / "transform.json"),
        splits=splits,
        notes=dict(made.notes),
        recipe=recipe,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _already_made(data_root: Path, name: str, recipe: str) -> Lineage | None:
    try:
        dataset = lineages.current(data_root, name)
        return lineages.verify(dataset) if lineages.read(dataset).recipe == recipe else None
    except DataRefused:
        return None  # nothing there, or damaged: make it


def _maker(config: Config) -> ModuleType:
    """The module that makes this dataset; imported late, for the libraries behind it are heavy."""
    if isinstance(config, WebsterConfig):
        from hpc.data import webster

        return webster
    from hpc.data import flights

    return flights
