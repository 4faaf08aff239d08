"""Tensors out of any map-style dataset: `ArraysDataset`.

Imports hpc.data and conf; the dataset of tensors is a plug-in, imported when it is built.
"""

from hpc.data.arrays.dataset import ArraysDataset

__all__ = ["ArraysDataset"]
