"""Texts with a label each, out of a CSV or Parquet file: `LabelledTextDataset`.

Imports hpc.data only, and pyarrow and tokenizers when it is built.
"""

from hpc.data.labelled_text.dataset import LabelledTextDataset

__all__ = ["LabelledTextDataset"]
