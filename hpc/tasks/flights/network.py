"""The flights model and its loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from hpc.models.flights_mlp import FlightsMLP, FlightsMLPConfig
from serving.runtime import flights_transform


def model(cfg: DictConfig, dataset: Path) -> FlightsMLP:
    """An MLP with the vocabularies of the dataset's frozen transform."""
    transform = flights_transform.load(Path(dataset) / "transform.json")
    config = OmegaConf.to_object(
        OmegaConf.merge(OmegaConf.structured(FlightsMLPConfig), OmegaConf.to_container(cfg.model))
    )
    assert isinstance(config, FlightsMLPConfig)
    return FlightsMLP(config, transform.vocabulary_sizes, transform.number_columns)


def loss(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Mean binary cross-entropy in nats, in fp32 whatever the model computes in."""
    logits = model(batch["categories"], batch["numbers"])
    return F.binary_cross_entropy_with_logits(logits.float(), batch["late"].float())
