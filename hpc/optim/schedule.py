"""The learning rate as a pure function of the step: resuming needs nothing but the step number."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

KINDS = ("constant", "linear", "cosine", "wsd")
EARLY_MOMENTUM = 0.85


@dataclass(frozen=True)
class Schedule:
    """Warm up, then decay; see `conf/optim/*.yaml`. Raises ValueError for a value out of range.

    Cosine: SGDR without restarts (https://arxiv.org/abs/1608.03983). wsd: warm-up, stable, decay
    (https://arxiv.org/abs/2404.06395).
    """

    kind: str
    """constant, linear, cosine, or wsd: warm up, stay, then decay linearly."""
    warmup_steps: int
    """Steps of linear growth from nearly 0; at most a tenth of the run is used."""
    decay_fraction: float
    """wsd: the last part of the run, in which the rate falls."""
    final: float
    """The rate after the last step, as a share of the peak."""

    momentum_warmup_steps: int = 0
    """Steps in which Muon's momentum grows to its value: early gradients are soon out of date."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind}: choose one of {', '.join(KINDS)}")
        for name in ("warmup_steps", "momentum_warmup_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be 0 or more")
        for name in ("decay_fraction", "final"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: a share, 0 to 1")

    def factor(self, step: int, steps: int) -> float:
        """The factor on the peak rate in step `step` (from 0) of `steps`: in (0, 1]."""
        warmup = min(self.warmup_steps, steps // 10)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if self.kind == "constant":
            return 1.0
        start = warmup
        if self.kind == "wsd":
            start = max(warmup, steps - round(self.decay_fraction * steps))
        if step < start:
            return 1.0
        # The step after the last one would have reached `final`: no step is taken at rate 0.
        progress = (step - start) / max(steps - start, 1)
        shape = (1 + math.cos(math.pi * progress)) / 2 if self.kind == "cosine" else 1 - progress
        return self.final + (1 - self.final) * shape

    def momentum(self, target: float, step: int) -> float:
        """Muon's momentum in step `step`: linear from `EARLY_MOMENTUM` to `target`.

        As in https://github.com/KellerJordan/modded-nanogpt
        """
        if step >= self.momentum_warmup_steps or target <= EARLY_MOMENTUM:
            return target
        return EARLY_MOMENTUM + (target - EARLY_MOMENTUM) * step / self.momentum_warmup_steps


class Rates:
    """Sets the rates of an optimizer's groups, each from its own peak, and Muon's momentum.

    Make it before a checkpoint is loaded: the rates in a checkpoint are those of its last step.
    """

    def __init__(self, optimizer: Any, schedule: Schedule, steps: int) -> None:
        self.optimizer, self.schedule, self.steps = optimizer, schedule, steps
        self.peaks = [group["lr"] for group in optimizer.param_groups]
        self.momenta = [group.get("momentum") for group in optimizer.param_groups]

    def set(self, step: int) -> float:
        """Set everything for step `step` (from 0); returns the rate of the first group."""
        factor = self.schedule.factor(step, self.steps)
        groups = self.optimizer.param_groups
        for group, peak in zip(groups, self.peaks, strict=True):
            group["lr"] = peak * factor
        for group, momentum in zip(groups, self.momenta, strict=True):
            if momentum is not None:
                group["momentum"] = self.schedule.momentum(momentum, step)
                if hasattr(self.optimizer, "muon_beta"):  # ZeRO-3 copied it when it was made
                    self.optimizer.muon_beta = group["momentum"]
        return float(groups[0]["lr"])
