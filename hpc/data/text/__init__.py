"""Text for causal language modelling, out of text files: `TextDataset`.

Imports hpc.data only, and tokenizers when it is built.
"""

from hpc.data.text.dataset import TextDataset

__all__ = ["TextDataset"]
