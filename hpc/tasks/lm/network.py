"""The language model and its loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from conf import ConfigError
from hpc.models.transformer import Transformer, TransformerConfig


def model(cfg: DictConfig, dataset: Path) -> Transformer:
    """A transformer whose vocabulary is the dataset's tokenizer's."""
    given = OmegaConf.to_container(cfg.model)
    assert isinstance(given, dict)
    given.pop("name", None)  # which network; there is one so far
    tokens = json.loads((Path(dataset) / "transform.json").read_text())["vocab_size"]
    if given.get("vocabulary") not in (None, tokens):
        raise ConfigError(
            f"model.vocabulary={given['vocabulary']}: the dataset's tokenizer has {tokens} tokens; "
            f"train with model.vocabulary={tokens}, or prepare with data.vocab_size"
        )
    config = OmegaConf.to_object(
        OmegaConf.merge(OmegaConf.structured(TransformerConfig), given, {"vocabulary": tokens})
    )
    assert isinstance(config, TransformerConfig)
    return Transformer(config)


def loss(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Mean cross-entropy of the next token, in nats."""
    return model(batch["tokens"], batch["targets"])
