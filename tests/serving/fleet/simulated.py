"""Fleets and shipments for tests of rollouts, over `serving.fleet.simulation`."""

from __future__ import annotations

from pathlib import Path

from serving.artifact.lineage import DatasetRef, Lineage
from serving.artifact.manifest import Manifest
from serving.artifact.tensors import TensorSpec
from serving.artifact.verify import FORMAT
from serving.fleet.inventory import Fleet, FleetEdge, Host, Region, Ssh
from serving.fleet.rollout.actions import EVERY_HOST, carry_out
from serving.fleet.rollout.journal import Journal
from serving.fleet.rollout.lease import hold
from serving.fleet.rollout.rollout_config import Outcome, RolloutConfig
from serving.fleet.rollout.rollout_run import RolloutRun
from serving.fleet.routing import Routing
from serving.fleet.shipment import Shipment
from serving.fleet.simulation.machines import SimulatedHost
from serving.fleet.simulation.simulated_driver import Killed, SimulatedDriver
from serving.triton import model_config

__all__ = ["Killed", "SimulatedDriver", "SimulatedHost"]

CONFIG = 'name: "toy" backend: "python" max_batch_size: 8\n' + (
    'input { name: "x" data_type: TYPE_FP32 dims: 1 }\n'
    'output { name: "y" data_type: TYPE_FP32 dims: 1 }\n'
)


def fleet(east: int = 2, west: int = 2) -> Fleet:
    def host(name: str, region: str, number: int) -> Host:
        return Host(name, f"127.0.0.{number}", region, 1)

    regions = []
    for region, count in (("us-east", east), ("us-west", west)):
        hosts = tuple(
            host(f"{region[3]}{n}", region, 10 * len(regions) + n + 1) for n in range(count)
        )
        if hosts:
            edge = FleetEdge(region, region, "http://127.0.0.1:1", Path("/run/s"), Path("/run"))
            regions.append(Region(region, (edge,), hosts))
    ssh = Ssh("lg-verify", "lg-host", 22, Path("/key"), Path("/known"), 5, 60)
    return Fleet("test", tuple(regions), ssh, 60, 60)


def shipment(version: int, config: str = CONFIG) -> Shipment:
    manifest = Manifest(
        format=FORMAT, model="toy", version=version, task="toy",
        created="2026-01-01T00:00:00Z", expires="2099-01-01T00:00:00Z",
        files=(), inputs=(TensorSpec("x", "FP32", (-1, 1)),),
        outputs=(TensorSpec("y", "FP32", (-1, 1)),), transform_digest="0" * 64,
        lineage=Lineage("run", "0" * 64, "0" * 64, DatasetRef("toy", "0" * 64)),
        requires={}, metrics={}, gates=(), previous=None,
    )  # fmt: skip
    return Shipment(Path("/store"), manifest, config, ())


def serving_fleet(
    versions: tuple[int, ...], east: int = 2, west: int = 2, routed: int | None = None
) -> SimulatedDriver:
    """A fleet whose hosts all serve `versions`; its edges route to `routed`, or the highest."""
    made = fleet(east, west)
    config = model_config.with_versions(CONFIG, versions) if versions else None
    packages = {version: shipment(version).digest for version in versions}
    machines = {
        host.name: SimulatedHost(
            versions, config, packages=dict(packages), installed=set(versions),
            highest=max(versions, default=0), proven=set(versions),
        )
        for host in made.hosts
    }  # fmt: skip
    driver = SimulatedDriver(machines, made)
    driver.configs = dict.fromkeys(versions, CONFIG)
    if versions:
        for edge in driver.edges.values():
            edge.routing = Routing(routed or max(versions))
    return driver


def act(
    driver: SimulatedDriver,
    folder: Path,
    action: str,
    version: int,
    rollout: str = "r1",
    selection=EVERY_HOST,
    judge=None,
    package: Shipment | None = None,
    progress=lambda *_: None,
    outside: tuple[Host, ...] = (),
    **options,
) -> Outcome:
    """One command of `fab` on the simulated fleet, with a journal in `folder`."""
    config = RolloutConfig(**{"settle_s": 0, "unload_timeout_s": 0.3, **options})
    with hold(folder, f"{action} {version}", 30) as lease:
        driver.fence = max(driver.fence, lease.fence)
        run = RolloutRun(
            driver.fleet, driver, Journal(folder), lease, rollout, action,
            package or shipment(version), config, progress, rollback=action != "deploy",
            outside=outside,
        )  # fmt: skip
        return carry_out(run, selection, judge=judge)
