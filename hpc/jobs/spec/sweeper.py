"""The choice of a sweep's trials, `sweeper` in `conf/train.yaml`: no spec holds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from conf.errors import ConfigError
from conf.names import nearest, shown
from conf.schema import from_config

GRID, TPE, RANDOM = "grid", "tpe", "random"
SAMPLERS = (GRID, TPE, RANDOM)
NONE, MEDIAN = "none", "median"
STOPS = (NONE, MEDIAN)
MINIMIZE, MAXIMIZE = "minimize", "maximize"
MOST_TRIALS = 10_000
SWEEP = "sweep."


@dataclass(frozen=True)
class SweeperConfig:
    """The keys of `conf/sweeper`; see `conf/sweeper/grid.yaml` for each key's meaning."""

    sampler: str = GRID
    params: dict[str, Any] = field(default_factory=dict)
    trials: int | None = None
    seed: int = 1
    metric: str | None = None
    direction: str | None = None
    stop: str = NONE
    warmup_steps: int | None = None
    startup_trials: int = 4
    poll_s: float = 5.0

    def __post_init__(self) -> None:
        _one_of("sampler", self.sampler, SAMPLERS, "Optuna is sweeper=optuna. ")
        _one_of("stop", self.stop, STOPS)
        if self.direction is not None:
            _one_of("direction", self.direction, (MINIMIZE, MAXIMIZE))
        if self.samples and self.trials is None:
            raise ValueError("trials=null: Optuna has no end of values; type sweeper.trials=20")
        if not self.samples and self.trials is not None:
            raise ValueError(
                f"trials={self.trials}: a grid has as many trials as its values make. Leave it "
                "out, or let Optuna choose: sweeper=optuna"
            )
        for name, value, least, most in (
            ("trials", self.trials, 1, MOST_TRIALS),
            ("seed", self.seed, 0, 2**32),
            ("warmup_steps", self.warmup_steps, 0, 10**15),
            ("startup_trials", self.startup_trials, 1, MOST_TRIALS),
            ("poll_s", self.poll_s, 0.1, 3600),
        ):
            if value is not None and not least <= value <= most:
                raise ValueError(f"{name}={value}: must be {least} to {most}")
        for key, value in self.params.items():
            if not isinstance(value, str | int | float):
                raise ValueError(
                    f'params.{key}={value!r}: write the values as on the line, as in {key}: "1,2,3"'
                )

    @property
    def samples(self) -> bool:
        """True where values are chosen one after another, and not named all at once."""
        return self.sampler != GRID

    @property
    def watches(self) -> bool:
        """True where the command stays until the sweep is done."""
        return self.samples or self.stop != NONE

    def axes_beside(self, overrides: Sequence[str]) -> list[str]:
        """The overrides of `params` whose keys are not among `overrides`, which win."""
        typed = {text.partition("=")[0].lstrip("+") for text in overrides}
        return [f"{key}={value}" for key, value in self.params.items() if key not in typed]


def sweeper_config(config: Mapping[str, Any]) -> SweeperConfig:
    """`config.sweeper` of a composed training config; raises `ConfigError` naming the key."""
    made: SweeperConfig = from_config(SweeperConfig, config["sweeper"], "sweeper")
    return made


def names_sweeper(overrides: Sequence[str]) -> bool:
    """True where a line says how its trials are chosen.

    Raises `ConfigError` for a key under `sweep`, which is the name of a sweep.
    """
    keys = [text.partition("=")[0].lstrip("+") for text in overrides]
    for key, text in zip(keys, overrides, strict=True):
        if key.startswith(SWEEP):
            raise ConfigError(f"{text}: {_advice(key.removeprefix(SWEEP), text)}")
    return any(key.partition(".")[0] == "sweeper" for key in keys)


def _advice(leaf: str, text: str) -> str:
    value = text.partition("=")[2]
    name = "sweep is the name of a sweep, as in sweep=lr"
    if leaf == "sampler" and value == "optuna":
        return f"{name}; type sweeper=optuna"
    if leaf == "parallel":
        return f"{name}; type cluster.sweep_parallel={value}"
    if leaf in {one.name for one in fields(SweeperConfig)}:
        return f"{name}; type sweeper.{leaf}={value}"
    return f"{name}; its trials are chosen by sweeper=grid or sweeper=optuna"


def _one_of(name: str, value: str, valid: Sequence[str], hint: str = "") -> None:
    if value not in valid:
        raise ValueError(f"{name}={shown(value)}: there is no such {name}. {hint}"
                         f"{nearest(value, valid)}")  # fmt: skip
