"""Optimizers that `optim._target_` can name; all of them check their settings without torch.

`AdamW` and `Muon` are ours. Any other class, of torch, DeepSpeed or one's own, is called with the
model's trainable parameters and the keys of `optim`. `optim.schedule` stands beside all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from conf.errors import ConfigError
from conf.plugin import find_target, is_own, make_plugin
from conf.schema import TARGET

if TYPE_CHECKING:
    import torch
    from torch import nn


class OptimizerConfig(Protocol):
    """The interface of an optimizer's config, made of `optim`."""

    def check(self, model: Any, gradient_clipping: float, zero_stage: int) -> None:
        """Raise `ConfigError` where this optimizer does not go with the run.

        `model` is the model's config, or None where only building it can show what it offers.
        """
        ...

    def zero_settings(self, stage: int) -> dict[str, Any]:
        """The keys that this optimizer sets in DeepSpeed's `zero_optimization` at ZeRO `stage`.

        See https://www.deepspeed.ai/docs/config-json/#zero-optimizations-for-fp16-training
        """
        ...

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer over all trainable parameters of `model`."""
        ...


def optimizer_config(node: Mapping[str, Any]) -> OptimizerConfig:
    """The optimizer of `node`, the keys of `optim` without `schedule`. Raises `ConfigError`."""
    if is_own(str(node.get(TARGET))):
        made = make_plugin(node, "optim")
        if not hasattr(made, "zero_settings"):
            raise ConfigError(f"optim.{TARGET}={node[TARGET]} is not an optimizer; see conf/optim")
        return made
    find_target(node.get(TARGET), "optim")
    return ForeignOptimizer(dict(node))


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (https://arxiv.org/abs/1711.05101), as torch has it.

    Matrices and embeddings are decayed, vectors (norms, biases) never.
    """

    lr: float
    """Peak rate."""
    betas: tuple[float, float]
    """Averages of gradient and square."""
    eps: float
    """Floor of the square root."""
    weight_decay: float

    def __post_init__(self) -> None:
        _check_above_zero(self, "lr", "eps")
        _check_betas(self.betas)
        _check_decay(self.weight_decay)

    def check(self, model: Any, gradient_clipping: float, zero_stage: int) -> None:
        """See `OptimizerConfig.check`: it goes with every run."""

    def zero_settings(self, stage: int) -> dict[str, Any]:
        """See `OptimizerConfig.zero_settings`: nothing."""
        return {}

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """See `OptimizerConfig.build`."""
        import torch

        trained = [weight for weight in model.parameters() if weight.requires_grad]
        adam = {"lr": self.lr, "betas": self.betas, "eps": self.eps}
        groups = [
            {
                "params": [w for w in trained if w.ndim > 1],
                **adam,
                "weight_decay": self.weight_decay,
            },
            {"params": [w for w in trained if w.ndim < 2], **adam, "weight_decay": 0.0},
        ]
        # One kernel a step on a GPU, and not one for each tensor and operation. On a CPU torch's
        # default stays: the fused one there rounds otherwise.
        fused = True if all_on_gpu(trained) else None
        return torch.optim.AdamW([group for group in groups if group["params"]], fused=fused)


@dataclass(frozen=True)
class Muon:
    """Orthogonalised momentum for the hidden matrices, Adam for everything else.

    The update of a hidden matrix is replaced by its nearest orthogonal matrix
    (https://kellerjordan.github.io/posts/muon/), inside DeepSpeed's ZeRO, where a whole gradient is
    still at hand. Which matrices are hidden, the model declares: `hidden_matrices()`.
    """

    lr: float
    """Peak rate of the matrices: the size of the orthogonal update."""
    adam_lr: float
    """Peak rate of everything else."""
    momentum: float
    """Of the matrices, once it is warm."""
    betas: tuple[float, float]
    """Adam's averages of gradient and square."""
    eps: float
    """Adam's floor."""
    weight_decay: float
    """Decoupled; matrices and embeddings, never vectors."""

    def __post_init__(self) -> None:
        _check_above_zero(self, "lr", "adam_lr", "eps")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum={self.momentum}: must be from 0 to below 1")
        _check_betas(self.betas)
        _check_decay(self.weight_decay)

    def check(self, model: Any, gradient_clipping: float, zero_stage: int) -> None:
        """See `OptimizerConfig.check`: no clipping under ZeRO, and a model that declares."""
        if gradient_clipping and zero_stage:
            raise ConfigError(
                f"gradient_clipping={gradient_clipping} with optim=muon: ZeRO would clip Muon's "
                "orthogonal update, whose size is its point, not the gradient. "
                "Set gradient_clipping=0."
            )
        if model is not None and not model.declares_hidden_matrices:
            raise ConfigError(_no_hidden_matrices(type(model).__name__))

    def zero_settings(self, stage: int) -> dict[str, Any]:
        """See `OptimizerConfig.zero_settings`: ZeRO-3 must keep whole gradients on every rank."""
        return {"reduce_scatter": False} if stage == 3 else {}

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """See `OptimizerConfig.build`. Raises `ConfigError` for a model that declares nothing."""
        import torch
        from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam

        if not hasattr(model, "hidden_matrices"):
            raise ConfigError(_no_hidden_matrices(type(model).__name__))
        declared = {id(weight) for weight in model.hidden_matrices()}  # type: ignore[operator]
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        hidden = [weight for weight in trained if id(weight) in declared]
        if any(weight.ndim != 2 for weight in hidden):
            raise ConfigError(f"{type(model).__name__}.hidden_matrices() gives what is no matrix")
        # DeepSpeed marks its Newton-Schulz for torch.compile, which would need a C++ compiler on
        # every node and saves nothing on matrices of this size on a CPU.
        if not torch.cuda.is_available():
            torch.compiler.set_stance("force_eager")
        for weight in hidden:
            weight.use_muon = True  # type: ignore[attr-defined]  # ZeRO looks for it
        muon = {
            "params": hidden,
            "use_muon": True,
            "lr": self.lr,
            "momentum": self.momentum,
            "weight_decay": self.weight_decay,
            "ns_method": "standard",  # bf16; "gram" computes in fp16, which CPUs emulate
        }
        adam = {"use_muon": False, "lr": self.adam_lr, "betas": self.betas, "eps": self.eps}
        outer = [w for w in trained if w.ndim > 1 and id(w) not in declared]
        vectors = [w for w in trained if w.ndim < 2]
        rest = [
            {"params": outer, **adam, "weight_decay": self.weight_decay},
            {"params": vectors, **adam, "weight_decay": 0.0},
        ]
        return MuonWithAuxAdam([group for group in (muon, *rest) if group["params"]])


@dataclass(frozen=True)
class ForeignOptimizer:
    """A class of torch, DeepSpeed or anybody, by `_target_`; its signature names the other keys."""

    node: Mapping[str, Any]

    def check(self, model: Any, gradient_clipping: float, zero_stage: int) -> None:
        """See `OptimizerConfig.check`: its signature is checked in `build`."""

    def zero_settings(self, stage: int) -> dict[str, Any]:
        """See `OptimizerConfig.zero_settings`: DeepSpeed's defaults."""
        return {}

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """See `OptimizerConfig.build`: one group of all parameters.

        Raises `ConfigError` for a key that the class does not take or a value that it refuses.
        """
        import torch

        trained = [weight for weight in model.parameters() if weight.requires_grad]
        made = make_plugin(self.node, "optim", trained)
        if not isinstance(made, torch.optim.Optimizer):
            raise ConfigError(
                f"optim.{TARGET}={self.node[TARGET]} made a {type(made).__name__}, which is not a "
                "torch.optim.Optimizer"
            )
        return made


def all_on_gpu(weights: Iterable[torch.Tensor]) -> bool:
    """True where every weight is on a CUDA device."""
    return all(weight.is_cuda for weight in weights)


def _no_hidden_matrices(model: str) -> str:
    return (
        f"optim=muon: {model} does not declare which of its weights are hidden matrices. "
        "Give it a method hidden_matrices() that yields them, or choose optim=adamw."
    )


def _check_above_zero(config: object, *names: str) -> None:
    for name in names:
        if getattr(config, name) <= 0:
            raise ValueError(f"{name}={getattr(config, name)}: must be above 0")


def _check_betas(betas: tuple[float, float]) -> None:
    if not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas={list(betas)}: each must be from 0 to below 1")


def _check_decay(weight_decay: float) -> None:
    if weight_decay < 0:
        raise ValueError(f"weight_decay={weight_decay}: must be 0 or more")
