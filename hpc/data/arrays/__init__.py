"""Tensors out of any map-style dataset: `ArraysDataset`."""

from hpc.data.arrays.dataset import ArraysDataset

__all__ = ["ArraysDataset"]
