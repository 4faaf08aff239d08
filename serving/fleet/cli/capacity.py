"""`fab capacity`: load against the knee of the hosts, hosts to spare, the date of the limit."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from omegaconf import DictConfig

from conf.schema import from_config
from serving.artifact import store
from serving.artifact.manifest import ManifestError
from serving.artifact.store import StoreError
from serving.fleet.capacity.growth import DAY_S
from serving.fleet.capacity.headroom import Headroom, RegionLoad, headroom
from serving.fleet.capacity.knee import Knee, knee_of
from serving.fleet.capacity.scaling import ScalePolicy
from serving.fleet.capacity.traffic import DrawnTraffic
from serving.fleet.cli.command import Controls, controls, model_name
from serving.fleet.report.prometheus import PrometheusClient
from serving.fleet.rollout.actions import production

_AT_ONCE = 8
_WINDOW = re.compile(r"([1-9][0-9]{0,4})([smh])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class SimulationConfig:
    """Replays of the policy, `fab autoscale --simulate`."""

    host_ready_s: float
    """Seconds until a host that is brought in takes requests."""
    knee_per_s: float
    """Requests a second that a host bears, where no version in production says."""
    drawn: DrawnTraffic
    """Traffic where no file is given."""

    def __post_init__(self) -> None:
        if self.host_ready_s < 0:
            raise ValueError(f"host_ready_s={self.host_ready_s}: must not be negative")
        if self.knee_per_s <= 0:
            raise ValueError(f"knee_per_s={self.knee_per_s}: must be above 0")


@dataclass(frozen=True)
class CapacityConfig:
    """The `capacity` section of conf/capacity.yaml."""

    window: str
    """Over which requests a second are taken, as Prometheus writes it."""
    days: int
    """Days of daily peaks."""
    policy: ScalePolicy
    """The number of hosts of each region."""
    simulation: SimulationConfig
    """Replays of the policy."""

    def __post_init__(self) -> None:
        if self.days < 1:
            raise ValueError(f"days={self.days}: must be at least 1")
        if not _WINDOW.fullmatch(self.window) or self.window_s < _UNIT_S["m"]:
            raise ValueError(f"window={self.window}: must be a minute at least, as in 5m")

    @property
    def window_s(self) -> int:
        """The window in seconds."""
        number, unit = self.window[:-1], self.window[-1]
        return int(number) * _UNIT_S[unit]


@dataclass(frozen=True)
class HostTraffic:
    """Requests a second that the edges of a region had answered by each host, of all models.

    `missing` is a sentence where they could not be read.
    """

    region: str
    per_s: Mapping[str, float] = field(default_factory=dict)
    missing: str = ""


@dataclass(frozen=True)
class FleetCapacity:
    """The capacity of each region for each model, and the traffic of each host."""

    models: tuple[Headroom, ...]
    hosts: tuple[HostTraffic, ...]


def fleet_capacity(config: DictConfig, model: str | None) -> FleetCapacity:
    """The capacity of each region for each model in production, or for one.

    Raises ConfigError, FleetConfigError.
    """
    on = controls(config)
    settings = from_config(CapacityConfig, config.capacity, "capacity")
    names = [model_name(model, "capacity")] if model is not None else known_models(on)
    prometheus = PrometheusClient(on.prometheus_url, on.passwords)
    now_s, window = time.time(), settings.window
    pairs = [(name, region) for name in names for region in on.fleet.for_model(name).regions]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        loads = list(
            pool.map(lambda p: read_load(prometheus, p[0], p[1].name, settings, now_s), pairs)
        )
        hosts = tuple(
            pool.map(lambda region: read_hosts(prometheus, region.name, window), on.fleet.regions)
        )
    knees, policy = {name: model_knee(on, name) for name in names}, settings.policy
    return FleetCapacity(
        tuple(
            headroom(name, region.name, len(region.hosts), knees[name], load, policy, now_s)
            for (name, region), load in zip(pairs, loads, strict=True)
        ),
        hosts,
    )


def read_load(
    prometheus: PrometheusClient, model: str, region: str, settings: CapacityConfig, now_s: float
) -> RegionLoad:
    """The load of one model in one region, as its edges counted it."""
    counted = f'lockgate_requests_total{{model="{model}",region="{region}"}}'
    rate = f"sum(rate({counted}[{settings.window}]))"
    now = prometheus.now(rate)
    if isinstance(now, str):
        return RegionLoad(missing=now)
    peak = f"max_over_time({rate}[1d:{settings.window}])"
    days = prometheus.over(peak, now_s - settings.days * DAY_S, now_s, DAY_S)
    return RegionLoad(now, days.points, days.missing)


def read_hosts(prometheus: PrometheusClient, region: str, window: str) -> HostTraffic:
    """The answers of each host that the HAProxy of each edge of a region counted, HTTP and gRPC."""
    counted = (
        f'haproxy_server_http_responses_total{{job="haproxy",proxy=~"triton.*",region="{region}"}}'
    )
    found = prometheus.by_label(f"sum by (server) (rate({counted}[{window}]))")
    if isinstance(found, str):
        return HostTraffic(region, missing=found)
    if not found:
        return HostTraffic(region, missing="Prometheus has no values of its edges")
    return HostTraffic(region, {labels.get("server", ""): rate for labels, rate in found})


def host_line(one: HostTraffic) -> str:
    """One line for a person."""
    if one.missing:
        return f"{one.region}: requests/s of each host unknown: {one.missing}."
    shares = (f"{name} {rate:.3g}" for name, rate in sorted(one.per_s.items()))
    return f"{one.region}: requests/s of each host: {', '.join(shares)}."


def known_models(on: Controls) -> list[str]:
    """The models that are or were in production."""
    return sorted({entry.model for entry in on.journal.read_ledger().entries})


def model_knee(on: Controls, model: str) -> Knee | None:
    """The load that a host bears with a model's version in production, None where none says."""
    version = production(on.journal, model)
    if version is None:
        return None
    try:
        return knee_of(store.get(on.store, model, version).manifest)
    except (StoreError, ManifestError):
        return None
