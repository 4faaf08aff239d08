"""Models that do not train in bf16: those with running statistics of their batches."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _NormBase  # private: the base of every such module

from conf.errors import ConfigError


def check_precision(precision: str, model: nn.Module) -> None:
    """Raise `ConfigError` for bf16 with a module that keeps statistics of its batches.

    DeepSpeed casts parameters and leaves buffers in fp32, and torch's batch normalisation takes no
    such mixture; in bf16 the running averages would hardly move.
    """
    if precision == "bf16" and keeps_batch_statistics(model):
        raise ConfigError(
            f"precision=bf16: {type(model).__name__} normalises by running statistics of its "
            "batches, which bf16 is too coarse for. Set precision=fp32, or use layer norms."
        )


def keeps_batch_statistics(model: nn.Module) -> bool:
    """True if a part of `model` is a batch norm, or another with running statistics."""
    return any(
        isinstance(part, _NormBase) and part.running_mean is not None for part in model.modules()
    )
