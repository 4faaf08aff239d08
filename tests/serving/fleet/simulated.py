"""A fleet in memory behind `FleetDriver`, in which any step can fail or be the last.

It keeps the rules of the real one: a drained host may be loaded, a restarted Triton serves what its
config says, clients get an answer only from hosts that take traffic and serve something.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

from serving.artifact.lineage import DatasetRef, Lineage
from serving.artifact.manifest import Manifest
from serving.artifact.tensors import TensorSpec
from serving.artifact.verify import FORMAT
from serving.fleet.errors import FleetError
from serving.fleet.inventory import Fleet, Host, Region, Ssh
from serving.fleet.rollout.driver import HostState, Traffic
from serving.fleet.rollout.lease import LeaseLost
from serving.fleet.rollout.records import Before
from serving.fleet.shipment import Shipment
from serving.triton import model_config

CONFIG = 'name: "toy" backend: "python" max_batch_size: 8\n' + (
    'input { name: "x" data_type: TYPE_FP32 dims: 1 }\n'
    'output { name: "y" data_type: TYPE_FP32 dims: 1 }\n'
)


class Killed(BaseException):
    """kill -9: nothing of ours runs after it."""


def fleet(east: int = 2, west: int = 2) -> Fleet:
    def host(name: str, region: str, number: int) -> Host:
        return Host(name, f"127.0.0.{number}", region, 1)

    regions = []
    for region, count in (("us-east", east), ("us-west", west)):
        hosts = tuple(
            host(f"{region[3]}{n}", region, 10 * len(regions) + n + 1) for n in range(count)
        )
        if hosts:
            regions.append(Region(region, Path("/run/s"), "http://127.0.0.1:1", hosts))
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


@dataclass
class Machine:
    serving: tuple[int, ...]
    config: str | None
    edge: str = "ready"
    packages: dict[int, str] = field(default_factory=dict)
    installed: set[int] = field(default_factory=set)
    alive: bool = True
    highest: int = 0
    fence: int = 0

    def as_it_is(self) -> Before:
        return Before(self.serving, self.config, self.edge)


class SimulatedDriver:
    """`fail_at`: the number of the change that fails (before or, with `late`, after its effect).

    `kill` makes it a Killed instead of a FleetError. `wrong` are versions whose golden examples
    are not equal. Every change is counted in `changes`; a moment without an answer for a region
    is in `outages`.
    """

    def __init__(self, machines: dict[str, Machine], driver_fleet: Fleet) -> None:
        self.machines, self.fleet = machines, driver_fleet
        self.wrong: set[int] = set()
        self.configs: dict[int, str] = {}
        self.changes: list[str] = []
        self.outages: list[str] = []
        self.fence = 0
        self.fail_at: int | None = None
        self.late = self.kill = False
        self._lock = threading.RLock()

    def arm(self, fail_at: int | None, late: bool = False, kill: bool = False) -> None:
        self.changes.clear()
        self.fail_at, self.late, self.kill = fail_at, late, kill

    def snapshot(self) -> dict[str, Before]:
        return {name: machine.as_it_is() for name, machine in self.machines.items()}

    def _change(self, host: Host, what: str, effect) -> None:
        with self._lock:
            machine = self.machines[host.name]
            if self.fence < machine.fence:
                raise LeaseLost(f"{host.name} has seen the controller {machine.fence}")
            machine.fence = self.fence
            self.changes.append(f"{what} {host.name}")
            failing = self.fail_at is not None and len(self.changes) == self.fail_at
            if failing and not self.late:
                self._fail(host, what)
            effect(machine)
            self._look()
            if failing:
                self._fail(host, what)

    def _fail(self, host: Host, what: str) -> None:
        self.fail_at = None
        raise Killed() if self.kill else FleetError(f"{host.name}: {what} failed")

    def _look(self) -> None:
        for region in self.fleet.regions:
            taking = [m for h in region.hosts if (m := self.machines[h.name]).edge == "ready"]
            if not any(m.alive for m in taking):
                self.outages.append(f"{region.name} after {self.changes[-1]}")

    def read_host(self, host: Host) -> HostState:
        m = self.machines[host.name]
        return HostState(
            host.name, host.region, m.serving if m.alive else (), m.config,
            tuple(sorted(m.packages.items())), m.edge, m.alive, m.alive, None, m.highest,
        )  # fmt: skip

    def read_hosts(self) -> dict[str, HostState]:
        return {host.name: self.read_host(host) for host in self.fleet.hosts}

    def peers_up(self, host: Host) -> int:
        peers = self.fleet.region_of(host).hosts
        return sum(
            self.machines[p.name].edge == "ready" and self.machines[p.name].alive
            for p in peers
            if p.name != host.name
        )

    def stage(self, host: Host, shipment: Shipment, rollback: bool) -> str:
        self._refuse_older(host, shipment.version, rollback)
        self.configs[shipment.version] = shipment.config

        def accept(machine: Machine) -> None:
            machine.packages[shipment.version] = shipment.digest
            machine.highest = max(machine.highest, shipment.version)

        self._change(host, "stage", accept)
        return "staged"

    def _refuse_older(self, host: Host, version: int, rollback: bool) -> None:
        if version < self.machines[host.name].highest and not rollback:
            raise FleetError(f"{host.name}: toy/{version} is older than the highest accepted")

    def _config(self, host: Host, versions: tuple[int, ...], rollback: bool) -> str:
        """The host's own: from the verified package of the highest."""
        assert set(versions) <= set(self.machines[host.name].packages), "only verified packages"
        self._refuse_older(host, max(versions), rollback)
        return model_config.with_versions(self.configs[max(versions)], versions)

    def drain(self, host: Host) -> None:
        self._change(
            host, "drain", lambda m: _set(m, edge="drain" if m.edge == "ready" else m.edge)
        )

    def set_maintenance(self, host: Host) -> None:
        self._change(host, "park", lambda m: _set(m, edge="maint"))

    def set_edge(self, host: Host, state: str) -> None:
        self._change(host, f"edge {state}", lambda m: _set(m, edge=state))

    def install(self, host: Host, shipment: Shipment) -> None:
        assert shipment.version in self.machines[host.name].packages, "only verified packages"
        self._change(host, "install", lambda m: m.installed.add(shipment.version))

    def persist(self, host: Host, versions: tuple[int, ...], rollback: bool) -> None:
        config = self._config(host, versions, rollback) if versions else None
        self._change(host, "persist", lambda m: _set(m, config=config))

    def serve(self, host: Host, versions: tuple[int, ...], rollback: bool) -> None:
        self._config(host, versions, rollback)
        machine = self.machines[host.name]
        assert machine.alive and set(versions) <= machine.installed, "Triton cannot load these"
        self._change(host, "serve", lambda m: _set(m, serving=tuple(sorted(versions))))

    def withdraw(self, host: Host) -> None:
        self._change(host, "withdraw", lambda m: _set(m, serving=()))

    def restart(self, host: Host) -> None:
        assert self.machines[host.name].edge == "maint", "only a parked host may be restarted"
        self._change(
            host,
            "restart",
            lambda m: _set(m, alive=True, serving=model_config.versions_in(m.config)),
        )

    def check_golden(self, host: Host, version: int) -> str:
        self._change(host, "check", lambda m: None)
        assert version in self.machines[host.name].serving
        if version in self.wrong:
            raise FleetError(f"{host.name}: golden example 0 of toy/{version} differs")
        return "equal"

    def watch(self, host: Host) -> Traffic:
        self._change(host, "watch", lambda m: None)
        return Traffic(10, 0)

    def prune(self, host: Host, serving: tuple[int, ...]) -> None:
        machine = self.machines[host.name]
        assert set(machine.serving) <= set(serving)
        machine.installed &= set(serving)


def _set(machine: Machine, **values) -> None:
    for name, value in values.items():
        setattr(machine, name, value)


def serving_fleet(versions: tuple[int, ...], east: int = 2, west: int = 2) -> SimulatedDriver:
    """A fleet whose hosts all serve `versions`."""
    made = fleet(east, west)
    config = model_config.with_versions(CONFIG, versions) if versions else None
    packages = {version: shipment(version).digest for version in versions}
    machines = {
        host.name: Machine(
            versions, config, packages=dict(packages), installed=set(versions),
            highest=max(versions, default=0),
        )
        for host in made.hosts
    }  # fmt: skip
    driver = SimulatedDriver(machines, made)
    driver.configs = dict.fromkeys(versions, CONFIG)
    return driver
