"""A simulated fleet under `fab autoscale`, with a Prometheus and a clock that a test sets."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conf import compose
from conf.schema import from_config
from serving.fleet.capacity.knee import Knee
from serving.fleet.capacity.scaling import ScalePolicy
from serving.fleet.cli import autoscale, command, host_commands, scale
from serving.fleet.cli.autoscale import RegionScaling, autoscale_regions
from serving.fleet.cli.capacity import CapacityConfig
from serving.fleet.cli.command import Controls
from serving.fleet.cli.replays import FIRST_DAY
from serving.fleet.rollout import journal as journal_module
from serving.fleet.rollout.host_orders import HostOrder
from serving.fleet.rollout.journal import Journal
from serving.fleet.rollout.lease import hold
from serving.fleet.rollout.rollout_config import RolloutConfig
from tests.serving.fleet import simulated

POLICY = ScalePolicy(least=1, most=4, target=0.5, hysteresis=0.2, cool_down_s=900)


class Site:
    """A model in production on four hosts of us-east and two of us-west, at a time of its own.

    `rates` are requests a second by region, `logged` and `answered` what the edges say of them;
    a host bears 10 requests a second.
    """

    def __init__(self, folder, patched: pytest.MonkeyPatch) -> None:
        self.driver = driver = simulated.serving_fleet((), 4, 2)
        self.rates: dict[str, float | str] = {"us-east": 20.0, "us-west": 3.0}
        self.logged: dict[str, float | str] = {}
        self.answered: dict[str, dict[str, float] | str] = {}
        self.folder, self.now_s = folder, FIRST_DAY
        config = RolloutConfig(settle_s=0, unload_timeout_s=0.3)
        self.on = Controls(driver.fleet, folder / "store", Journal(folder), config, "", folder)

        def opened(fleet, model, store, config, fence=0):
            driver.fence = max(driver.fence, fence)
            return nullcontext(driver)

        for module in (autoscale, command, host_commands, scale):
            patched.setattr(module, "SshDriver", opened)
        for module in (command, scale):
            patched.setattr(
                module, "read_shipment", lambda _, model, version: simulated.shipment(version)
            )
        patched.setattr(autoscale, "PrometheusClient", lambda *_: self)
        patched.setattr(autoscale, "model_knee", lambda on, model: Knee(10.0, ""))
        patched.setattr(
            journal_module, "_now", lambda: datetime.fromtimestamp(self.now_s, UTC).isoformat()
        )
        assert simulated.act(driver, folder, "deploy", 1, "d1").kind == "done"

    def now(self, expression: str) -> float | str:
        region = re.search(r'region="([^"]+)"', expression)[1]
        if "max_over_time" in expression:
            return self.rates[region]
        return self.logged.get(region, self.rates[region])

    def by_label(self, expression: str) -> list | str:
        region = re.search(r'region="([^"]+)"', expression)[1]
        answered = self.answered.get(region, {"e0": 1.0})
        if isinstance(answered, str):
            return answered
        return [({"server": name}, rate) for name, rate in answered.items()]

    def round(
        self, policy: ScalePolicy = POLICY, region: str = "", plan: bool = False
    ) -> list[RegionScaling]:
        settings = replace(capacity_config(), policy=policy)
        return autoscale_regions(self.on, settings, region, plan, self.now_s, lambda *_: None)

    def order(self, name: str, act, reason: str = "a person") -> None:
        with hold(self.folder, "host", 30) as lease:
            self.driver.fence = lease.fence
            host = self.driver.fleet.host(name)
            order = HostOrder(host, [(self.driver, 1)], self.on.journal, lease, lambda *_: None)
            act(order, reason)

    def taking(self, region: str = "us-east") -> int:
        """Hosts of a region that get requests."""
        hosts = next(one for one in self.driver.fleet.regions if one.name == region).hosts
        return sum(self.driver.machines[host.name].edge == "ready" for host in hosts)


def capacity_config() -> CapacityConfig:
    """conf/capacity.yaml."""
    return from_config(CapacityConfig, compose("capacity").capacity, "capacity")


@contextmanager
def memory_folder() -> Iterator[Path]:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as path:
        yield Path(path)
