"""A small network for tables: embeddings of the categories beside the numbers, then an MLP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from hpc.models.tabular_mlp import TabularMLPConfig


class TabularMLP(nn.Module):
    """categories int64 (B, C), numbers (B, N) -> (B, outputs); C or N may be 0."""

    def __init__(
        self, config: TabularMLPConfig, vocabularies: Sequence[int], numbers: int, outputs: int
    ) -> None:
        super().__init__()
        self.config = config
        widths = [min(config.embedding, (size + 1) // 2) for size in vocabularies]
        self.embeddings = nn.ModuleList(
            nn.Embedding(size, width) for size, width in zip(vocabularies, widths, strict=True)
        )
        for embedding in self.embeddings:
            nn.init.normal_(embedding.weight, std=0.1)  # type: ignore[arg-type]
        layers: list[nn.Module] = []
        before = sum(widths) + numbers
        for width in config.hidden:
            layers += [nn.Linear(before, width), nn.SiLU(), nn.Dropout(config.dropout)]
            before = width
        self.layers = nn.Sequential(*layers)
        self.output = nn.Linear(before, outputs)

    def hidden_matrices(self) -> Iterator[Tensor]:
        """The matrices between hidden layers, for Muon: all but embeddings and output layer."""
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                yield layer.weight

    def recomputed_blocks(self) -> Iterator[nn.Module]:
        """The modules whose activations may be computed a second time in backward."""
        yield self.layers

    def forward(self, categories: Tensor, numbers: Tensor) -> Tensor:
        if self.training and self.config.unknown > 0:
            shown = torch.rand(categories.shape, device=categories.device) >= self.config.unknown
            categories = categories * shown
        parts = [embed(categories[:, index]) for index, embed in enumerate(self.embeddings)]
        parts.append(numbers.to(self.output.weight.dtype))
        return self.output(self.layers(torch.cat(parts, dim=1)))
