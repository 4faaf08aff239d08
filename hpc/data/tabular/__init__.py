"""Tables of features and a target, out of CSV or Parquet files: `TabularDataset`.

Imports hpc.data and the transform of serving.runtime; DuckDB and pyarrow when it is built.
"""

from hpc.data.tabular.dataset import TabularDataset

__all__ = ["TabularDataset"]
