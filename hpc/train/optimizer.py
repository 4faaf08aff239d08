"""Optimizers: which parameters get which rule and rate.

Muon turns the update of every hidden matrix into its nearest orthogonal matrix; embeddings, output
layers, gains and biases go with Adam. Its orthogonalisation happens inside DeepSpeed's ZeRO, where
a whole gradient is still at hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from conf import ConfigError
from hpc.train.schedule import Schedule

NAMES = ("adamw", "muon")


@dataclass(frozen=True)
class OptimConfig:
    """See `conf/optim/*.yaml` for each key's meaning. Raises `ConfigError`."""

    name: str
    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    schedule: Schedule
    adam_lr: float | None = field(default=None)
    momentum: float = field(default=0.95)

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise ConfigError(f"optim.name={self.name}: choose one of {', '.join(NAMES)}")
        if self.lr <= 0 or (self.adam_lr is not None and self.adam_lr <= 0):
            raise ConfigError(f"optim.lr={self.lr}, optim.adam_lr={self.adam_lr}: must be above 0")
        if not (0 <= self.momentum < 1 and all(0 <= beta < 1 for beta in self.betas)):
            raise ConfigError("optim.momentum and optim.betas: must be from 0 to less than 1")


def optim_config(config: DictConfig) -> OptimConfig:
    """`config.optim` of a training config, checked."""
    plain: Any = OmegaConf.to_container(config.optim, resolve=True)
    if not isinstance(plain, dict):
        raise ConfigError("no optimizer was chosen: add optim=NAME (see conf/optim)")
    try:
        schedule = Schedule(**plain.pop("schedule"))
        betas = tuple(plain.pop("betas"))
        return OptimConfig(**plain, betas=betas, schedule=schedule)  # type: ignore[arg-type]
    except (KeyError, TypeError) as error:
        name = plain.get("name")
        raise ConfigError(
            f"optim does not have the keys of conf/optim/{name}.yaml: {error}"
        ) from error


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon's rule is for this parameter: a matrix between two hidden layers."""
    outer = any(part in ("head", "embedding", "embeddings") for part in name.split("."))
    return parameter.ndim == 2 and not outer


def build(config: OptimConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer over all of `model`; matrices are decayed, vectors never."""
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    adam_lr = config.adam_lr if config.name == "muon" and config.adam_lr else config.lr
    adam = {"lr": adam_lr, "betas": config.betas, "eps": config.eps}
    hidden = [weight for name, weight in named if is_hidden_matrix(name, weight)]
    outer = [w for name, w in named if w.ndim > 1 and not is_hidden_matrix(name, w)]
    vectors = [weight for _, weight in named if weight.ndim < 2]
    decay = {"weight_decay": config.weight_decay}
    if config.name == "adamw":
        groups = [
            {"params": hidden + outer, **adam, **decay},
            {"params": vectors, **adam, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW([group for group in groups if group["params"]])
    return _muon(hidden, outer, vectors, config, adam)


def _muon(
    hidden: list[nn.Parameter],
    outer: list[nn.Parameter],
    vectors: list[nn.Parameter],
    config: OptimConfig,
    adam: dict[str, Any],
) -> torch.optim.Optimizer:
    from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam

    # DeepSpeed marks its Newton-Schulz for torch.compile, which would need a C++ compiler on every
    # node and saves nothing on matrices of this size on a CPU.
    if not torch.cuda.is_available():
        torch.compiler.set_stance("force_eager")
    for weight in hidden:
        weight.use_muon = True  # type: ignore[attr-defined]  # ZeRO looks for it
    muon = {
        "params": hidden,
        "use_muon": True,
        "lr": config.lr,
        "momentum": config.momentum,
        "weight_decay": config.weight_decay,
        "ns_method": "standard",  # bf16; "gram" computes in fp16, which CPUs emulate
    }
    rest = [
        {"params": weights, "use_muon": False, **adam, "weight_decay": decay}
        for weights, decay in ((outer, config.weight_decay), (vectors, 0.0))
    ]
    return MuonWithAuxAdam([group for group in (muon, *rest) if group["params"]])
