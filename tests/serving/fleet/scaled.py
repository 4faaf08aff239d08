"""A simulated fleet under `fab scale`, with its journal."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from serving.fleet.cli import command, host_commands, scale
from serving.fleet.cli.command import Controls
from serving.fleet.rollout.host_orders import HostOrder
from serving.fleet.rollout.journal import Journal
from serving.fleet.rollout.lease import hold
from serving.fleet.rollout.rollout_config import RolloutConfig
from serving.triton import model_config
from tests.serving.fleet import simulated as sim


class Site:
    """Version 2 in production on four hosts of us-east and one of us-west."""

    def __init__(self, folder: Path, patched: pytest.MonkeyPatch) -> None:
        self.driver = driver = sim.serving_fleet((), 4, 1)
        self.folder, self.shown = folder, []
        config = RolloutConfig(settle_s=0, unload_timeout_s=0.3)
        self.on = Controls(driver.fleet, folder / "store", Journal(folder), config, "", folder)

        def opened(fleet, model, store, config, fence=0):
            driver.fence = max(driver.fence, fence)
            return nullcontext(driver)

        for module in (command, host_commands, scale):
            patched.setattr(module, "SshDriver", opened)
        for module in (command, scale):
            patched.setattr(
                module, "read_shipment", lambda _, model, version: sim.shipment(version)
            )
        for version in (1, 2):
            assert sim.act(driver, folder, "deploy", version, f"d{version}").kind == "done"
        driver.changes.clear()
        driver.outages.clear()
        driver.unproven.clear()

    def hosts(self, count: int, region: str = "us-east", reason: str = "") -> str:
        return scale.scale_hosts(self.on, region, count, reason, self.progress)

    def instances(self, count: int | None) -> str:
        return scale.scale_instances(self.on, "toy", count, "", self.progress)

    def progress(self, *shown: str) -> None:
        self.shown.append(shown)

    @property
    def taking(self) -> set[str]:
        machines = self.driver.machines
        return {name for name, one in machines.items() if one.edge == "ready" and name != "w0"}

    @property
    def standby(self) -> set[str]:
        return set(self.on.journal.standby())

    @property
    def counts(self) -> set[tuple[int, int]]:
        """Instances in each Triton, and after its restart."""
        return {
            (one.loaded, model_config.instances_in(one.config))
            for one in self.driver.machines.values()
        }

    def order(self, name: str, act, *more: object) -> None:
        with hold(self.folder, "host", 30) as lease:
            self.driver.fence = lease.fence
            host = self.driver.fleet.host(name)
            act(HostOrder(host, [(self.driver, 2)], self.on.journal, lease, self.progress), *more)

    def heal(self) -> object:
        return sim.act(self.driver, self.folder, "heal", 2, "healed")

    def served_well(self) -> None:
        assert self.driver.outages == [] and self.driver.unproven == []
