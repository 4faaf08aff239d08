"""Lineage: what a dataset was made from, and the sha256 of each file that was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpc.data.refusal import DataRefused
from serving.artifact.digest import LINEAGE_FILE, tree_digest

FILE = LINEAGE_FILE


@dataclass(frozen=True)
class DatasetLineage:
    """The content of `lineage.json`.

    `splits` maps a split to its file, sha256 and size (`rows`, or `tokens` and `bytes`). `recipe`
    is the digest of sources, config and preparing code together: the same recipe makes the same
    dataset, so it need not be made twice. `notes` counts what was left out and why.
    """

    name: str
    digest: str
    source: Mapping[str, Any]
    schema: Mapping[str, str]
    transform_digest: str
    splits: Mapping[str, Mapping[str, Any]]
    notes: Mapping[str, Any]
    recipe: str
    created: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_lineage(dataset: Path) -> DatasetLineage:
    """The lineage of the dataset folder `dataset`. Raises `DataRefused` when there is none."""
    path = Path(dataset) / FILE
    if not path.is_file():
        raise DataRefused(
            f"there is no dataset at {dataset}. Make it with: lockgate data prepare data=NAME"
        )
    return DatasetLineage(**json.loads(path.read_text()))


def lineage_digest(dataset: Path) -> str | None:
    """Digest in the lineage of the folder `dataset`; None for a folder without a valid one."""
    try:
        return read_lineage(dataset).digest
    except (OSError, ValueError, TypeError):  # missing (`DataRefused`), torn, or of another version
        return None


def current_dataset(data_root: Path, name: str) -> Path:
    """The folder that `<data_root>/<name>/current` points at, resolved.

    Resolved, because `current` moves at the next `prepare` and a run must not move with it.
    """
    link = Path(data_root) / name / "current"
    if not (link / FILE).is_file():
        raise DataRefused(
            f"dataset {name!r} is not prepared in {data_root}. "
            f"Make it with: lockgate data prepare data={name}"
        )
    return link.resolve()


def verify_dataset(dataset: Path) -> DatasetLineage:
    """Read the lineage and hash every file against it. Raises `DataRefused` on a difference."""
    lineage = read_lineage(dataset)
    found = tree_digest(Path(dataset), exclude=(FILE,))
    if found != lineage.digest:
        raise DataRefused(
            f"dataset {lineage.name} at {dataset} has digest {found[:12]}, and its lineage says "
            f"{lineage.digest[:12]}: its files were changed. "
            f"Make it again with: lockgate data prepare data={lineage.name}"
        )
    return lineage
