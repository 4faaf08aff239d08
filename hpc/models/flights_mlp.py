"""A small network for tables: embeddings of the categories beside the numbers, then an MLP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from conf import ConfigError


@dataclass(frozen=True)
class FlightsMLPConfig:
    """Shape of the network. Raises `ConfigError` for what cannot be."""

    embedding: int = 8
    """Width of each category's embedding, at most; small vocabularies get less."""
    hidden: list[int] = field(default_factory=lambda: [64, 32])
    """Widths of the hidden layers."""
    dropout: float = 0.1
    """Share of hidden units left out at each training step."""
    unknown: float = 0.02
    """Share of categories shown as unknown while training, so that unknown means something."""

    def __post_init__(self) -> None:
        if self.embedding < 1 or not self.hidden or min(self.hidden) < 1:
            raise ConfigError("model.embedding and each of model.hidden must be at least 1")
        for name in ("dropout", "unknown"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"model.{name}={getattr(self, name)}: must be from 0 to below 1")


class FlightsMLP(nn.Module):
    """categories int64 (B, C), numbers (B, N) -> logits (B,): positive means late."""

    def __init__(self, config: FlightsMLPConfig, vocabularies: Sequence[int], numbers: int) -> None:
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
        self.output = nn.Linear(before, 1)

    def forward(self, categories: Tensor, numbers: Tensor) -> Tensor:
        if self.training and self.config.unknown > 0:
            shown = torch.rand(categories.shape, device=categories.device) >= self.config.unknown
            categories = categories * shown
        parts = [embed(categories[:, index]) for index, embed in enumerate(self.embeddings)]
        parts.append(numbers.to(self.output.weight.dtype))
        return self.output(self.layers(torch.cat(parts, dim=1))).squeeze(1)
