"""The edges of a fleet in memory, the faults that a test arms, and what clients noticed."""

from __future__ import annotations

import threading
from collections import Counter

from serving.fleet.errors import FleetError, Unreachable
from serving.fleet.inventory import Fleet, Host
from serving.fleet.rollout.records import Before
from serving.fleet.routing import Routing, VersionCounters
from serving.fleet.simulation.edge_traffic import (
    ROUND,
    serve_round,
    shares,
    summed_counters,
)
from serving.fleet.simulation.machines import SimulatedEdge, SimulatedHost


class Killed(BaseException):
    """kill -9: nothing of ours runs after it."""


class SimulatedEdges:
    """`fail_at`: the number of the change that fails (before or, with `late`, after its effect).

    `kill` makes it a Killed instead of a FleetError; with `hang` a load that fails is still made
    by Triton, some reads later. `wrong` are versions whose golden examples are not equal. Every
    change is counted in `changes`.
    """

    def __init__(self, machines: dict[str, SimulatedHost], driver_fleet: Fleet) -> None:
        self.machines, self.fleet = machines, driver_fleet
        self.edges = {region.name: SimulatedEdge(region.name) for region in driver_fleet.regions}
        self.wrong: set[int] = set()
        self.failing: dict[int, float] = {}
        self.configs: dict[int, str] = {}
        self.copies: Counter[int] = Counter()
        self.changes: list[str] = []
        self.routed: list[tuple[str, Routing]] = []
        self.receiving: set[str] = set()
        self.outages: list[str] = []
        self.unproven: list[str] = []
        self.fence = 0
        self.fail_at: int | None = None
        self.late = self.kill = self.hang = self.killed = False
        self.lock = threading.RLock()

    def arm(
        self, fail_at: int | None, late: bool = False, kill: bool = False, hang: bool = False
    ) -> None:
        """Let change number `fail_at` from now on fail."""
        self.changes.clear()
        self.fail_at, self.late, self.kill, self.hang = fail_at, late, kill, hang
        self.killed = False

    def snapshot(self) -> dict[str, Before]:
        """Every host as an undo knows it."""
        return {name: machine.as_it_is() for name, machine in self.machines.items()}

    def _count(self, change: str) -> bool:
        if self.killed:
            raise Killed()  # the other threads of a killed controller do nothing more either
        self.changes.append(change)
        return self.fail_at is not None and len(self.changes) == self.fail_at

    def _fail(self, place: str, what: str) -> None:
        self.fail_at, self.killed = None, self.kill
        raise Killed() if self.kill else FleetError(f"{place}: {what} failed")

    def _reach(self, host: Host) -> None:
        if not self.machines[host.name].reachable:
            raise Unreachable(f"{host.name} does not answer on SSH.")

    def _observe(self) -> None:
        for region in self.fleet.regions:
            edge = self.edges[region.name]
            taking = [h.name for h in region.hosts if self.machines[h.name].takes_traffic()]
            if not taking:
                self.outages.append(f"{region.name} after {self.changes[-1]}")
            for name in taking:
                for version in shares(edge.routing):
                    if version not in self.machines[name].proven:
                        self.unproven.append(f"{name} for {version} after {self.changes[-1]}")

    def read_routing(self) -> dict[str, Routing | str]:
        """The routing of each edge, a sentence for one that does not answer."""
        return {
            name: edge.routing if edge.reachable else f"the edge {name} does not answer."
            for name, edge in self.edges.items()
        }

    def edges_of(self, host: Host) -> tuple[str, ...]:
        """The edges of its region."""
        return tuple(name for name, edge in self.edges.items() if edge.region == host.region)

    def receives(self, host: Host) -> bool:
        """True for the hosts in `receiving`."""
        return host.name in self.receiving

    def recipients(self) -> dict[str, frozenset[str]]:
        """The hosts in `ready` behind each edge that answers, and the departed ones."""
        return {
            name: frozenset(edge.departed)
            | {h.name for h in self.fleet.hosts
               if name in self.edges_of(h) and self.machines[h.name].edge == "ready"}
            for name, edge in self.edges.items()
            if edge.reachable
        }  # fmt: skip

    def shut_out(self, edge: str, name: str) -> None:
        """No more requests to a departed host."""
        if self._count(f"shut out {name}"):
            self._fail(edge, "shut out")
        self.edges[edge].departed.discard(name)

    def edge_states(self) -> dict[str, str]:
        """The states at edges that answer."""
        return {
            host.name: self.machines[host.name].edge
            for host in self.fleet.hosts
            if all(self.edges[name].reachable for name in self.edges_of(host))
        }

    def route(self, edge: str, routing: Routing) -> None:
        """Set one edge's routing. Raises Unreachable."""
        with self.lock:
            if not self.edges[edge].reachable:
                raise Unreachable(f"the edge {edge} does not answer.")
            failing = self._count(f"route {edge}")
            if failing and not self.late:
                self._fail(edge, "route")
            self.edges[edge].routing = routing
            self.routed.append((edge, routing))
            self._observe()
            if failing:
                self._fail(edge, "route")

    def counters(self) -> dict[int, VersionCounters]:
        """Counts after one more round of requests at each edge that answers."""
        with self.lock:
            for edge in self.edges.values():
                if edge.reachable:
                    serve_round(edge, self._taking(edge), self.failing)
            return summed_counters(self.edges.values())

    def _taking(self, edge: SimulatedEdge) -> list[SimulatedHost]:
        hosts = next(region.hosts for region in self.fleet.regions if region.name == edge.region)
        return [m for h in hosts if (m := self.machines[h.name]).takes_traffic()]

    def shadow_counters(self) -> dict[int, VersionCounters]:
        """Counts of copies after one more round of requests at each edge."""
        with self.lock:
            for edge in self.edges.values():
                if edge.routing.shadow is not None:
                    copies = round(ROUND * edge.routing.shadow_percent / 100)
                    self.copies[edge.routing.shadow] += copies
            return {
                version: VersionCounters(count, round(count * self.failing.get(version, 0.0)))
                for version, count in self.copies.items()
            }

    def peers_up(self, host: Host) -> int:
        """Other hosts of its region that take traffic."""
        peers = self.fleet.region_of(host).hosts
        return sum(self.machines[p.name].takes_traffic() for p in peers if p.name != host.name)
