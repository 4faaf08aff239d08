"""Lineage: the run, the code, the settings and the data that a model was made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DatasetRef:
    """A published dataset, by name and content; `path` is the folder where a run read it."""

    name: str
    digest: str
    path: str | None = None

    @property
    def folder(self) -> Path:
        """The folder at `path`. Raises ValueError for a reference without one."""
        if self.path is None:
            raise ValueError(f"the reference to dataset {self.name} names no folder")
        return Path(self.path)


@dataclass(frozen=True)
class Lineage:
    """Origin of a candidate or a version; each digest can be recomputed from what the run left.

    `project_digest` is the sha256 of a project folder outside the repository, None without one.
    """

    run: str
    spec_digest: str
    source_digest: str
    dataset: DatasetRef
    project_digest: str | None = None
