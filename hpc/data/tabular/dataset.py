"""The configuration of a tabular dataset: the keys of a `conf/data/*.yaml`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from conf.names import nearest
from hpc.data.dataset import BuildResult, Progress
from hpc.data.recipe import core_files, files_of
from hpc.data.source import FileSource, SourceFile
from hpc.data.split import SplitSpec
from hpc.data.tables import NULLABLE, TYPES, CsvFormat
from hpc.data.tabular.columns import FeatureSpec, TargetSpec
from serving.artifact import splits
from serving.runtime import features, tabular_transform


@dataclass(frozen=True)
class TabularDataset:
    """One table of features and a target, whole groups in train, validation and holdout."""

    name: str
    """The dataset's folder: ${site.paths.data}/<name>."""
    source: FileSource
    """CSV or Parquet files, by the name of a table; one is enough where there is no `query`."""
    features: tuple[FeatureSpec, ...]
    """The columns that exist at the time of a prediction, in the order of the model's."""
    target: TargetSpec
    split: SplitSpec
    group: str = ""
    """Column whose equal values stay together in one split; "" keeps only equal rows together."""
    query: str = ""
    """DuckDB SQL over the tables; its last statement gives the rows, in an order of its own making.
    It cannot read files. "" takes the one table as it is."""
    drop: dict[str, str] = field(default_factory=dict)
    """Rows to leave out: {reason: SQL condition over the result}. Counted by the first reason."""
    types: dict[str, dict[str, str]] = field(default_factory=dict)
    """{table: {column: type}}; `nullable <type>` allows missing values. A query sees the columns
    that are named here alone. Without a query features and target have types of their own, and
    every other column of a CSV file is text."""
    columns: dict[str, dict[str, str]] = field(default_factory=dict)
    """{table: {our name: the file's name}}, where they differ."""
    unique: dict[str, list[str]] = field(default_factory=dict)
    """{table: columns} that must not occur twice together: a join would guess."""
    min_category_count: int = 1
    """A category seen less often on train shares the bucket of unknown ones."""
    csv: CsvFormat = field(default_factory=CsvFormat)

    def __post_init__(self) -> None:
        if not self.features:
            raise ValueError("features=[]: name at least one")
        names = [one.name for one in self.features]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ValueError(f"features: {twice[0]} is there twice")
        if self.target.name in names or self.target.source in names:
            raise ValueError(f"target: {self.target.source} is a feature, too")
        if self.target.served in names:
            raise ValueError(f"target.output={self.target.served}: it is a feature, too")
        if self.target.name == self.group:
            raise ValueError(f"group={self.group}: it is the target")
        if len(self.source.files) > 1 and not self.query:
            raise ValueError("query is empty: with several tables it has to join them")
        if self.min_category_count < 1:
            raise ValueError(f"min_category_count={self.min_category_count}: must be at least 1")
        for key in ("types", "columns", "unique"):
            for table in getattr(self, key):
                if table not in self.source.files:
                    tables_there = nearest(table, self.source.files)
                    raise ValueError(f"{key}.{table} is no table of source.files. {tables_there}")
        for table, types in self.types.items():
            for column, dtype in types.items():
                if dtype.removeprefix(NULLABLE) not in TYPES:
                    valid = nearest(dtype.removeprefix(NULLABLE), TYPES)
                    raise ValueError(f"types.{table}.{column}={dtype} is no type. {valid}")

    def sources(self) -> dict[str, SourceFile]:
        """See `Dataset.sources`."""
        return self.source.pinned_files()

    def source_name(self) -> str:
        """See `Dataset.source_name`."""
        return self.source.name()

    def source_version(self) -> str:
        """See `Dataset.source_version`."""
        return self.source.version()

    def build(self, staging: Path, progress: Progress) -> BuildResult:
        """See `Dataset.build`."""
        from hpc.data.tabular.build import build_tabular

        return build_tabular(self, staging, progress)

    def code(self) -> tuple[Path, ...]:
        """See `Dataset.code`."""
        shared = core_files("source", "tables", "split", "classes")
        served = (Path(str(one.__file__)) for one in (splits, features, tabular_transform))
        return (*files_of(Path(__file__).parent), *shared, *served)
