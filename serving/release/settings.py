"""`conf/release.yaml` and `conf/gates/*.yaml` as frozen dataclasses; other keys are refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf import ConfigError
from conf.schema import build
from serving.release.flights import BaseRateGate, Holdout, NotWorseGate
from serving.release.hygiene import HygieneGate
from serving.release.latency import LatencyGate
from serving.release.lm import BaselineGate, HeldOut


@dataclass(frozen=True)
class PlainGate:
    """A gate that has no threshold of its own."""

    required: bool


@dataclass(frozen=True)
class GoldenGate:
    """`golden`: fewer examples than `min_examples` prove too little."""

    required: bool
    min_examples: int


@dataclass(frozen=True)
class FlightsGates:
    """`conf/gates/flights.yaml`."""

    task: str
    hygiene: HygieneGate
    interface: PlainGate
    golden: GoldenGate
    holdout: Holdout
    base_rate: BaseRateGate
    logistic_regression: NotWorseGate
    production: NotWorseGate
    latency: LatencyGate


@dataclass(frozen=True)
class LmGates:
    """`conf/gates/lm.yaml`."""

    task: str
    hygiene: HygieneGate
    interface: PlainGate
    golden: GoldenGate
    holdout: HeldOut
    gzip: BaselineGate
    xz: BaselineGate
    production: BaselineGate
    latency: LatencyGate


Gates = FlightsGates | LmGates
TASKS: dict[str, type[FlightsGates] | type[LmGates]] = {"flights": FlightsGates, "lm": LmGates}


@dataclass(frozen=True)
class Throwaway:
    """Where the throw-away servers listen, and how long they may take to be ready."""

    address: str
    start_timeout_s: float


@dataclass(frozen=True)
class Settings:
    """One release: what is released, where everything is, and what it must pass."""

    run: str
    allow_breaking: bool
    runs: Path
    data: Path
    store: Path
    release_key: Path
    allowed_signers: Path
    serving_env: Path
    mlflow_uri: str
    throwaway: Throwaway
    gates: Gates

    @property
    def candidate(self) -> Path:
        return self.runs / self.run / "candidate"


def load(cfg: DictConfig) -> Settings:
    """The settings in a composed `release` config. Raises ConfigError naming the key."""
    try:
        node: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(_missing(cfg) or str(error).strip().splitlines()[0]) from None
    gates, paths = node["gates"], node["site"]["paths"]
    if gates.get("task") not in TASKS:
        raise ConfigError(f"gates.task is {gates.get('task')!r}; there are {', '.join(TASKS)}")
    try:
        return Settings(
            run=build(str, node["run"], "run"),
            allow_breaking=build(bool, node["allow_breaking"], "allow_breaking"),
            runs=Path(paths["runs"]),
            data=Path(paths["data"]),
            store=Path(paths["store"]),
            release_key=Path(paths["release_key"]),
            allowed_signers=Path(paths["allowed_signers"]),
            serving_env=Path(node["site"]["serving_env"]),
            mlflow_uri=str(node["site"]["mlflow_uri"]),
            throwaway=build(Throwaway, node["throwaway"], "throwaway"),
            gates=build(TASKS[gates["task"]], gates, "gates"),
        )
    except ValueError as error:
        raise ConfigError(f"conf/release.yaml: {error}") from None


def _missing(cfg: DictConfig) -> str:
    if OmegaConf.is_missing(cfg, "run"):
        return "run: say which run to release, as in lockgate release run=RUN (see lockgate ls)"
    return ""
