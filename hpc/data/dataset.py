"""The plug-in interface of a dataset: the class that `data._target_` names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from hpc.data.source import SourceFile

Progress = Callable[[str], None]
"""Takes one line of progress."""
TENSOR_NAME = re.compile(r"[A-Za-z0-9_.-]+")
"""Names that a served tensor can have."""


@dataclass(frozen=True)
class BuildResult:
    """Schema of the built splits, size and file of each, and counts of what was left out."""

    schema: Mapping[str, str]
    splits: Mapping[str, Mapping[str, Any]]
    notes: Mapping[str, Any]


@runtime_checkable
class Dataset(Protocol):
    """A frozen dataclass whose fields are the keys of `conf/data/<name>.yaml`."""

    name: str

    def sources(self) -> dict[str, SourceFile]:
        """The raw files, checked against their pins. Raises `DataRefused`.

        None: the examples come out of code, and only building them shows whether they changed.
        """
        ...

    def source_name(self) -> str:
        """Name of the package or the class that the raw data comes from."""
        ...

    def source_version(self) -> str:
        """The installed version of what `source_name` names, or `unknown`."""
        ...

    def build(self, staging: Path, progress: Progress) -> BuildResult:
        """Write the dataset's files into the folder `staging`. Raises `DataRefused`."""
        ...

    def code(self) -> tuple[Path, ...]:
        """The source files whose bytes decide the result."""
        ...
