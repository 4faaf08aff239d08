"""Text for causal language modelling, out of text files: `TextDataset`."""

from hpc.data.text.dataset import TextDataset

__all__ = ["TextDataset"]
