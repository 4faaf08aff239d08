"""Plug-ins of somebody else, as a project would have them: a dataset, modules, a loss."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class Digits:
    """scikit-learn's digits: `image` float32 (1, 8, 8) from 0 to 1, `digit` int64."""

    def __init__(self) -> None:
        from sklearn.datasets import load_digits

        found = load_digits()
        self.images = (found.images / 16).astype(np.float32)[:, None]
        self.digits = found.target.astype(np.int64)

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, row: int) -> tuple[np.ndarray, np.int64]:
        return self.images[row], self.digits[row]


class ConvNet(nn.Module):
    """(B, 1, 8, 8) -> logits (B, classes)."""

    def __init__(self, channels: int = 8, classes: int = 10, norm: bool = True) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"{channels} channels are too few")
        self.convolution = nn.Conv2d(1, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels) if norm else nn.Identity()
        self.output = nn.Linear(channels * 16, classes)

    def forward(self, image: Tensor) -> Tensor:
        hidden = torch.relu(self.norm(self.convolution(image)))
        return self.output(nn.functional.max_pool2d(hidden, 2).flatten(1))


class Raising(nn.Module):
    """Cannot be made."""

    def __init__(self) -> None:
        super().__init__()
        raise KeyError("weights of last year")


class Sleeping(nn.Module):
    """Takes too long to be made."""

    def __init__(self) -> None:
        super().__init__()
        import time

        time.sleep(60)


class Exotic(nn.Module):
    """Uses an operation that ONNX does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, image: Tensor) -> Tensor:
        return torch.linalg.matrix_exp(self.scale * image[:, 0]).flatten(1)


class ValueDependent(nn.Module):
    """Does one thing or another, by the values of its input."""

    def forward(self, image: Tensor) -> Tensor:
        if image.sum() > 0:
            return image
        return -image


def not_a_module(channels: int = 1) -> list[int]:
    return [channels]
