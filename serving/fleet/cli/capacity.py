"""`fab capacity`: load against the knee of the hosts, hosts to spare, the date of the limit."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from omegaconf import DictConfig

from conf.schema import from_config
from serving.artifact import store
from serving.artifact.manifest import ManifestError
from serving.artifact.store import StoreError
from serving.fleet.capacity.growth import DAY_S
from serving.fleet.capacity.headroom import Headroom, RegionLoad, headroom
from serving.fleet.capacity.knee import Knee, knee_of
from serving.fleet.capacity.scaling import ScalePolicy
from serving.fleet.cli.command import Controls, controls, model_name
from serving.fleet.report.prometheus import PrometheusClient
from serving.fleet.rollout.actions import production

_AT_ONCE = 8


@dataclass(frozen=True)
class CapacityConfig:
    """The `capacity` section of conf/capacity.yaml."""

    window: str
    """Over which requests a second are taken, as Prometheus writes it."""
    days: int
    """Days of daily peaks."""
    policy: ScalePolicy
    """The number of hosts that is advised."""

    def __post_init__(self) -> None:
        if self.days < 1:
            raise ValueError(f"days={self.days}: must be at least 1")


def fleet_capacity(config: DictConfig, model: str | None) -> list[Headroom]:
    """The capacity of each region for each model in production, or for one.

    Raises ConfigError, FleetConfigError.
    """
    on = controls(config)
    settings = from_config(CapacityConfig, config.capacity, "capacity")
    known = sorted({entry.model for entry in on.journal.read_ledger().entries})
    names = [model_name(model, "capacity")] if model is not None else known
    prometheus = PrometheusClient(on.prometheus_url, on.passwords)
    now_s = time.time()
    pairs = [(name, region) for name in names for region in on.fleet.regions]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        loads = list(
            pool.map(lambda p: read_load(prometheus, p[0], p[1].name, settings, now_s), pairs)
        )
    knees = {name: _knee(on, name) for name in names}
    return [
        headroom(name, region.name, len(region.hosts), knees[name], load, settings.policy, now_s)
        for (name, region), load in zip(pairs, loads, strict=True)
    ]


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


def _knee(on: Controls, model: str) -> Knee | None:
    version = production(on.journal, model)
    if version is None:
        return None
    try:
        return knee_of(store.get(on.store, model, version).manifest)
    except (StoreError, ManifestError):
        return None
