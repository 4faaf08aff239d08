"""The configuration of an array dataset: the keys of a `conf/data/*.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.plugin import targets
from conf.schema import TARGET
from hpc.data.dataset import TENSOR_NAME, BuildResult, Progress
from hpc.data.recipe import core_files, files_of
from hpc.data.source import SourceFile, package_version
from hpc.data.split import LATER, SPLITS, SplitSpec


@dataclass(frozen=True)
class ArraysDataset:
    """Named arrays of any map-style dataset (`__len__` and `__getitem__`), such as torch's."""

    name: str
    """The dataset's folder: ${site.paths.data}/<name>."""
    examples: Any
    """One mapping with `_target_`, whose examples `split` shares out; or one for each of train,
    validation, holdout and perhaps `later`. An example is a mapping by name, or a tuple of the
    inputs, the targets and the group, in this order."""
    inputs: tuple[str, ...]
    """Names of the arrays that the model takes; the served tensors have the same names."""
    targets: tuple[str, ...]
    """Names of the arrays that it learns."""
    split: SplitSpec | None = None
    """Shares of the splits; only with one `_target_`."""
    group: str = ""
    """Name of the value whose examples stay together in one split; "" keeps only equal examples
    together."""

    def __post_init__(self) -> None:
        for key in ("inputs", "targets"):
            if not getattr(self, key):
                raise ValueError(f"{key}=[]: name at least one array")
        names = self.names
        for name in names:
            if not TENSOR_NAME.fullmatch(name) or names.count(name) > 1:
                raise ValueError(f"inputs, targets and group: {name!r} is no name, or there twice")
        if not isinstance(self.examples, Mapping):
            raise ValueError(f"examples={self.examples!r}: must be a mapping with {TARGET}")
        if TARGET in self.examples:
            if self.split is None:
                raise ValueError("split is missing: one _target_ has to be shared out")
            if self.split.time:
                raise ValueError("split.time: arrays are split by fractions, or by a _target_ each")
            return
        if not set(SPLITS) <= set(self.examples) <= {*SPLITS, LATER}:
            raise ValueError(f"examples: needs {TARGET}, or one for each of {', '.join(SPLITS)}")
        if self.split is not None:
            raise ValueError("split: the examples are split already")

    @property
    def names(self) -> tuple[str, ...]:
        """Every value of an example, in the order of a tuple."""
        return (*self.inputs, *self.targets, *((self.group,) if self.group else ()))

    def sources(self) -> dict[str, SourceFile]:
        """See `Dataset.sources`."""
        return {}

    def source_name(self) -> str:
        """See `Dataset.source_name`."""
        return ", ".join(sorted({target for _, target in targets(self.examples, "data.examples")}))

    def source_version(self) -> str:
        """See `Dataset.source_version`."""
        return package_version(self.source_name().partition(".")[0])

    def build(self, staging: Path, progress: Progress) -> BuildResult:
        """See `Dataset.build`."""
        from hpc.data.arrays.build import build_arrays

        return build_arrays(self, staging, progress)

    def code(self) -> tuple[Path, ...]:
        """See `Dataset.code`."""
        return (*files_of(Path(__file__).parent), *core_files("source", "tables", "split"))
