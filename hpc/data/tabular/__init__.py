"""Tables of features and a target, out of CSV or Parquet files: `TabularDataset`."""

from hpc.data.tabular.dataset import TabularDataset

__all__ = ["TabularDataset"]
