"""Map-style datasets that a test's configuration names, with and without torch."""

from __future__ import annotations

from typing import Any

import numpy as np


class Squares:
    """`count` small images and their labels, as tuples of a torch tensor and a number."""

    def __init__(self, count: int, seed: int = 0, bad: str = ""):
        draw = np.random.default_rng(seed)
        self.images = draw.random((count, 1, 4, 4), dtype=np.float32)
        self.bad = bad

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> Any:
        import torch

        image = torch.from_numpy(self.images[row])
        if row == 5:
            if self.bad == "shape":
                image = image[:, :3]
            elif self.bad == "dtype":
                image = image.double()
            elif self.bad == "nan":
                image = image * float("nan")
            elif self.bad == "text":
                return "image", row % 3
            elif self.bad == "length":
                return image, row % 3, 0
        return image, row % 3


class Pairs:
    """Mappings of two inputs, a target and the person it came from."""

    def __len__(self) -> int:
        return 60

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"left": [row, 1], "right": row / 2, "sum": row * 1.5, "person": f"p{row % 12}"}


class Empty(Pairs):
    def __len__(self) -> int:
        return 0


def number() -> int:
    return 3
