"""Texts with a label each, out of a CSV or Parquet file: `LabelledTextDataset`."""

from hpc.data.labelled_text.dataset import LabelledTextDataset

__all__ = ["LabelledTextDataset"]
