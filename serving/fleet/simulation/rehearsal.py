"""A rollout through a drawn fleet of any size, by the same engine, in memory.

Nothing is waited for and no host is reached; what fails is drawn by a seed. Driver calls are
counted: a fleet that is twice as large must not cost more than twice as many.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from conf.site_placement import Isolation, ModelPlacement
from serving.artifact.lineage import DatasetRef, Lineage
from serving.artifact.manifest import Manifest
from serving.artifact.verify import FORMAT
from serving.fleet.errors import FleetError
from serving.fleet.inventory import Fleet, FleetEdge, Host, Region, Ssh
from serving.fleet.rollout.actions import carry_out
from serving.fleet.rollout.journal import Journal
from serving.fleet.rollout.lease import hold
from serving.fleet.rollout.rollout_config import Outcome, RolloutConfig
from serving.fleet.rollout.rollout_plan import Selection
from serving.fleet.rollout.rollout_run import RolloutRun
from serving.fleet.routing import Routing
from serving.fleet.shipment import Shipment
from serving.fleet.simulation.machines import SimulatedHost
from serving.fleet.simulation.simulated_driver import SimulatedDriver
from serving.triton import model_config

_CONFIG = 'name: "drawn" backend: "python" max_batch_size: 8\n'
_OLD, _NEW = 1, 2
_LEASE_S = 600.0


class CountedDriver(SimulatedDriver):
    """A simulated fleet that counts how often each host was read."""

    reads = 0

    def read_host(self, host: Host) -> Any:
        """The host as it is."""
        self.reads += 1
        return super().read_host(host)


@dataclass(frozen=True)
class Rehearsal:
    """One drawn rollout: its end, what it cost in driver calls, and what clients noticed.

    `outages` are times at which a region had no host in traffic, `unproven` times at which a host
    got requests for a version that nobody had checked on it, `strayed` changes of hosts that the
    model has no place on.
    """

    draw: str
    hosts: int
    regions: int
    outcome: str
    exit_code: int
    changes: int
    reads: int
    outages: int
    unproven: int
    seconds: float
    strayed: int = 0

    def as_json(self) -> dict[str, Any]:
        """The rehearsal as `fab plan --simulate --json` lists it."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.draw}: {self.outcome}, exit {self.exit_code}; {self.changes} changes and "
            f"{self.reads} reads of {self.hosts} hosts in {self.regions} regions, "
            f"{self.outages} outages, {self.unproven} unproven answers, "
            f"{self.strayed} changes outside its hosts, {self.seconds:.1f} s"
        )


def drawn_fleet(hosts: int, regions: int) -> Fleet:
    """A fleet of `hosts` hosts dealt to `regions` regions, each with one edge."""
    made = []
    for number in range(regions):
        name = f"us-{number}"
        edge = FleetEdge(name, name, "http://127.0.0.1:1", Path("/nowhere"), Path("/nowhere"))
        members = tuple(
            Host(f"h{k}", f"10.{k >> 16}.{k >> 8 & 255}.{k & 255}", name, 1)
            for k in range(number, hosts, regions)
        )
        made.append(Region(name, (edge,), members))
    ssh = Ssh("drawn", "drawn", 22, Path("/nowhere"), Path("/nowhere"), 5, 60)
    return Fleet("drawn", tuple(made), ssh, 60, 60)


def rehearse(
    hosts: int, regions: int, seed: int, config: RolloutConfig, folder: Path
) -> list[Rehearsal]:
    """Roll a version through drawn fleets, each with other failures. Journals lie in `folder`."""
    quick = replace(
        config, settle_s=0, bake_s=0, unload_timeout_s=0.1, approvals=(), freeze=(),
        webhook="", webhook_file="", lock_ttl_s=_LEASE_S,
    )  # fmt: skip
    draw = random.Random(seed)
    names = [host.name for host in drawn_fleet(hosts, regions).hosts]
    away = draw.sample(names, max(1, hosts // 100))
    dead = draw.sample([name for name in names if name not in away], max(1, hosts // 100))
    failing = draw.randrange(hosts + 2, 3 * hosts)
    fleet = drawn_fleet(hosts, regions)

    def nothing(driver: CountedDriver) -> None:
        """Leave all as it is."""

    def one_change(driver: CountedDriver) -> None:
        driver.fail_at = failing

    def wrong(driver: CountedDriver) -> None:
        driver.wrong = {_NEW}

    def unreachable(driver: CountedDriver) -> None:
        for name in away:
            driver.machines[name].reachable = False

    def worn(driver: CountedDriver) -> None:
        unreachable(driver)
        for name in dead:
            driver.machines[name].dead = {_OLD}

    placed = _placed(fleet, draw)

    cases: Sequence[tuple[str, str, Callable[[CountedDriver], None], Selection, Fleet]] = (
        ("deploy, nothing fails", "deploy", nothing, Selection(), fleet),
        (f"deploy, change {failing} fails", "deploy", one_change, Selection(), fleet),
        ("deploy, the version answers wrong", "deploy", wrong, Selection(), fleet),
        (f"deploy, {len(away)} hosts away and skipped", "deploy", unreachable,
         Selection(skip=frozenset(away)), fleet),
        (f"rollback, {len(away)} hosts away, {len(dead)} with a dead stub", "rollback", worn,
         Selection(), fleet),
        (f"deploy of a model that is placed on {len(placed.hosts)} hosts", "deploy", nothing,
         Selection(), placed),
        ("rollback of it, a host of it that answers wrong", "rollback",
         lambda driver: driver.machines[placed.hosts[0].name].dead.add(_OLD), Selection(), placed),
    )  # fmt: skip
    return [
        _rehearsed(title, action, spoil, chosen, (fleet, own), quick, folder / str(number))
        for number, (title, action, spoil, chosen, own) in enumerate(cases)
    ]


def _placed(fleet: Fleet, draw: random.Random) -> Fleet:
    """The fleet of a model with a drawn third of each region's hosts, two at least; others share
    them or not."""
    chosen = {
        host.name
        for region in fleet.regions
        for host in draw.sample(list(region.hosts), max(2, len(region.hosts) // 3))
    }
    isolation: Isolation = draw.choice(("shared", "alone"))
    hosts = tuple(host.name for host in fleet.hosts if host.name in chosen)
    return replace(fleet, placement={"drawn": ModelPlacement(hosts, isolation)}).for_model("drawn")


def _rehearsed(
    title: str,
    action: str,
    spoil: Callable[[CountedDriver], None],
    chosen: Selection,
    fleets: tuple[Fleet, Fleet],
    config: RolloutConfig,
    folder: Path,
) -> Rehearsal:
    """`fleets` are all hosts, and those that have the model."""
    folder.mkdir()
    whole, fleet = fleets
    driver, journal = _serving(whole), Journal(folder)
    driver.fleet = fleet  # as `fab` gives it to a driver: the model's own hosts
    untouched = {host.name for host in whole.hosts} - {host.name for host in fleet.hosts}
    if action == "rollback":
        _act(driver, journal, "deploy", _NEW, Selection(), config)
    spoil(driver)
    driver.changes.clear()
    driver.outages.clear()
    driver.unproven.clear()
    driver.reads, began = 0, time.monotonic()
    try:
        version = _OLD if action == "rollback" else _NEW
        end = _act(driver, journal, action, version, chosen, config)
        kind, code = str(end.kind), end.exit_code
    except FleetError as error:
        kind, code = str(error), error.exit_code
    strayed = sum(change.rsplit(" ", 1)[-1] in untouched for change in driver.changes)
    return Rehearsal(
        title, len(fleet.hosts), len(fleet.regions), kind, code, len(driver.changes),
        driver.reads, len(driver.outages), len(driver.unproven), time.monotonic() - began, strayed,
    )  # fmt: skip


def _act(
    driver: CountedDriver,
    journal: Journal,
    action: str,
    version: int,
    chosen: Selection,
    config: RolloutConfig,
) -> Outcome:
    with hold(journal.folder, f"{action} {version}", config.lock_ttl_s) as lease:
        driver.fence = max(driver.fence, lease.fence)
        run = RolloutRun(
            driver.fleet, driver, journal, lease, f"{action}-{version}", action,
            _shipment(version), config, lambda *_: None, rollback=action != "deploy",
        )  # fmt: skip
        return carry_out(run, chosen)


def _serving(fleet: Fleet) -> CountedDriver:
    """A fleet that serves the old version everywhere, proven."""
    text = model_config.with_versions(_CONFIG, (_OLD,))
    digest = _shipment(_OLD).digest
    machines = {
        host.name: SimulatedHost(
            (_OLD,), text, packages={_OLD: digest}, installed={_OLD}, highest=_OLD, proven={_OLD}
        )
        for host in fleet.hosts
    }
    driver = CountedDriver(machines, fleet)
    driver.configs = {_OLD: _CONFIG}
    for edge in driver.edges.values():
        edge.routing = Routing(_OLD)
    return driver


def _shipment(version: int) -> Shipment:
    manifest = Manifest(
        format=FORMAT, model="drawn", version=version, task="drawn",
        created="2026-01-01T00:00:00Z", expires="2099-01-01T00:00:00Z",
        files=(), inputs=(), outputs=(), transform_digest="0" * 64,
        lineage=Lineage("drawn", "0" * 64, "0" * 64, DatasetRef("drawn", "0" * 64)),
        requires={}, metrics={}, gates=(),
    )  # fmt: skip
    return Shipment(Path("/nowhere"), manifest, _CONFIG, ())
