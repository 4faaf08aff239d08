"""`conf/release.yaml` and `conf/gates/*.yaml` as frozen dataclasses; other keys are refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from conf import ConfigError
from conf.plugin import make_plugin
from conf.schema import TARGET, from_config, plain_values
from serving.release.gate import Gate
from serving.release.production import BASELINES
from serving.triton.confinement import Confinement, ConfinementLimits
from serving.triton.ephemeral import ServerPatience


@dataclass(frozen=True)
class EphemeralSettings:
    """User, bounds, patience and load of the confined tritonservers of the gates."""

    user: str
    """OS user that runs what a candidate brings; never the one that releases."""
    start_timeout_s: float
    """Until the model version is ready."""
    request_timeout_s: float
    """Of one request."""
    answer_mib: int
    """Largest answer that is accepted."""
    in_flight: int
    """Requests at a time while a split is predicted."""
    limits: ConfinementLimits
    """Bounds of one server."""
    read_only: tuple[Path, ...]
    """Further folders that the serving environment needs, such as CUDA."""

    def __post_init__(self) -> None:
        for name in ("start_timeout_s", "request_timeout_s", "answer_mib", "in_flight"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")

    @property
    def patience(self) -> ServerPatience:
        """Bounds of what is waited for and accepted of a server."""
        return ServerPatience(self.start_timeout_s, self.request_timeout_s, self.answer_mib)


@dataclass(frozen=True)
class ReleaseSettings:
    """One release: its run, every path it touches, and the gates it must pass."""

    run: str
    allow_breaking: bool
    production: str
    """One of production.BASELINES."""
    max_bytes: int
    """Of a candidate that is copied at all; the contents gate may allow less."""
    valid_days: int
    """After its release no host accepts the package for the first time any more."""
    runs: Path
    data: Path
    store: Path
    journal: Path
    release_key: Path
    allowed_signers: Path
    serving_env: Path
    mlflow_uri: str
    passwords: Path
    """With this user's own account at MLflow."""
    gates_folder: Path
    """Folder in which each confined server gets a folder of its own."""
    ephemeral: EphemeralSettings
    sign_as: str
    """OS user that owns the key and signs; empty where the releasing user owns it itself."""
    signed: Path
    """Record of what was signed, the signing user's."""
    gates: Mapping[str, Gate]
    """By place in the YAML, in its order."""

    @property
    def candidate(self) -> Path:
        """The folder of the candidate."""
        return self.runs / self.run / "candidate"

    @property
    def confinement(self) -> Confinement:
        """User, folder and bounds of the servers that the gates need."""
        one = self.ephemeral
        return Confinement(one.user, self.gates_folder, one.limits, one.read_only)


def release_settings(cfg: DictConfig) -> ReleaseSettings:
    """The settings in a composed `release` config. Raises ConfigError naming the key."""
    if OmegaConf.is_missing(cfg, "run"):
        raise ConfigError(
            "run: say which run to release, as in lockgate release run=RUN (see lockgate ls)"
        )
    site, paths = plain_values(cfg.site, "site"), plain_values(cfg.site, "site")["paths"]
    return ReleaseSettings(
        run=from_config(str, cfg.run, "run"),
        allow_breaking=from_config(bool, cfg.allow_breaking, "allow_breaking"),
        production=_baseline(from_config(str, cfg.production, "production")),
        max_bytes=from_config(int, cfg.max_bytes, "max_bytes"),
        valid_days=_valid_days(cfg),
        runs=Path(paths["runs"]),
        data=Path(paths["data"]),
        store=Path(paths["store"]),
        journal=Path(paths["journal"]),
        release_key=Path(paths["release_key"]),
        allowed_signers=Path(paths["allowed_signers"]),
        serving_env=Path(site["serving_env"]),
        mlflow_uri=str(site["mlflow_uri"]),
        passwords=Path(paths["passwords"]),
        gates_folder=Path(paths["gates"]),
        sign_as=from_config(str, cfg.sign_as, "sign_as"),
        signed=Path(paths["signed"]),
        ephemeral=from_config(EphemeralSettings, cfg.ephemeral, "ephemeral"),
        gates=make_gates(plain_values(cfg.get("gates"), "gates")),
    )


def _valid_days(cfg: DictConfig) -> int:
    days: int = from_config(int, cfg.valid_days, "valid_days")
    if not 1 <= days <= 3650:
        raise ConfigError(f"valid_days={days}: must be between 1 and 3650")
    return days


def _baseline(value: str) -> str:
    if value not in BASELINES:
        raise ConfigError(
            f"production={value}: must be {' or '.join(BASELINES)}; the version itself is what the "
            "ledger of the fleet's journal says"
        )
    return value


def make_gates(node: object) -> dict[str, Gate]:
    """The gates of a YAML by their place, such as `golden` or `base_rate.auc`, in its order.

    A mapping without `_target_` groups the gates in it. Raises ConfigError for an unknown target,
    key or value, with the nearest names; for what is no gate; and for no gates at all.
    """
    made: dict[str, Gate] = {}
    for name, values in _gate_nodes(node or {}, ""):
        gate = make_plugin(values, f"gates.{name}")
        lacks = [part for part in ("required", "names", "run") if not hasattr(gate, part)]
        if lacks:
            raise ConfigError(
                f"gates.{name}.{TARGET}={values[TARGET]} is no gate: it has no {', '.join(lacks)} "
                "(see serving/release/gate.py)"
            )
        made[name] = gate
    if not made:
        raise ConfigError("gates: there are none; name a set of conf/gates, as in gates=NAME")
    return made


def _gate_nodes(node: object, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not isinstance(node, Mapping):
        where = f"gates.{place}" if place else "gates"
        raise ConfigError(f"{where} is {node!r}; a gate is a mapping with {TARGET}")
    if TARGET in node:
        yield place, node
        return
    for key, child in node.items():
        yield from _gate_nodes(child, f"{place}.{key}" if place else str(key))
