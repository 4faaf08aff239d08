"""The shape of a small network for tables, checked without torch; see `tabular_network`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from hpc.models.tabular_network import TabularMLP


@dataclass(frozen=True)
class TabularMLPConfig:
    """Shape of the network. Raises ValueError for what cannot be."""

    declares_hidden_matrices: ClassVar[bool] = True

    embedding: int
    """Width of each category's embedding, at most; small vocabularies get less."""
    hidden: tuple[int, ...]
    """Widths of the hidden layers."""
    dropout: float
    """Share of hidden units left out at each training step."""
    unknown: float
    """Share of categories shown as unknown while training, so that unknown means something."""

    def __post_init__(self) -> None:
        if self.embedding < 1:
            raise ValueError(f"embedding={self.embedding}: must be at least 1")
        if not self.hidden or min(self.hidden) < 1:
            widths = list(self.hidden)
            raise ValueError(f"hidden={widths}: needs at least one layer, each at least 1 wide")
        for name in ("dropout", "unknown"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be from 0 to below 1")

    def build(self, vocabularies: Sequence[int], numbers: int, outputs: int) -> TabularMLP:
        """A network for ids below each of `vocabularies`, `numbers` columns and `outputs` values.

        Its weights are fresh, in fp32, and follow torch's global seed.
        """
        from hpc.models.tabular_network import TabularMLP

        return TabularMLP(self, vocabularies, numbers, outputs)
