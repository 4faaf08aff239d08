"""Activation checkpointing: a block keeps its inputs alone and computes again in backward.

Memory falls from all activations to those of one block and the inputs of the others, for a second
forward pass (https://arxiv.org/abs/1604.06174). Dropout draws the same numbers both times.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from conf.errors import ConfigError


def recompute_blocks(model: nn.Module) -> None:
    """Make the blocks of `model` compute their activations a second time in backward.

    The blocks are those that `model.recomputed_blocks()` yields, or of a Hugging Face model its
    layers. Raises `ConfigError` for a model that has neither. Weights keep their names.
    """
    if hasattr(model, "recomputed_blocks"):
        for block in model.recomputed_blocks():  # type: ignore[operator]
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    elif getattr(model, "supports_gradient_checkpointing", False):
        enable: Any = model.gradient_checkpointing_enable
        enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    else:
        raise ConfigError(
            f"activation_checkpointing=true: {type(model).__name__} does not declare its blocks. "
            "Give it a method recomputed_blocks() that yields the modules to compute twice, or set "
            "activation_checkpointing=false."
        )
