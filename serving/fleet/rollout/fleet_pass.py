"""A rollback or a heal while it runs: what it found, the edges, and the hosts left behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from serving.fleet.errors import FleetError
from serving.fleet.haproxy.edge import MAINT, READY
from serving.fleet.inventory import Host
from serving.fleet.rollout.journal import Unfinished
from serving.fleet.rollout.lease import LeaseLost
from serving.fleet.rollout.records import Before
from serving.fleet.rollout.rollout_run import RolloutRun
from serving.fleet.rollout.traffic import route_edges
from serving.fleet.routing import Routing
from serving.triton import model_config


@dataclass(frozen=True)
class Turn:
    """The knowledge of a rollback or a heal before it begins.

    `warm` are hosts that have the version proven by the journal, `left_out` those that get no
    traffic and are not touched, `only` the ones to bring (empty: all), `production` the version in
    the ledger. `unfinished` is the rollout that this one ends. `outside` are hosts that the model
    shall leave.
    """

    warm: frozenset[str] = frozenset()
    left_out: Mapping[str, str] = field(default_factory=dict)
    only: frozenset[str] = frozenset()
    production: int | None = None
    unfinished: Unfinished | None = None
    reason: str = ""
    outside: tuple[Host, ...] = ()


class FleetPass:
    """One pass over the fleet. `stuck` grows by a sentence for each host and edge left behind.

    `flipped` are edges that give the version or were tried in vain, `weak` hosts that answer for it
    and need a restart all the same, `failures` the reason why a host does not answer for it,
    `edge_before` the hosts' states at their edges before.
    """

    def __init__(self, run: RolloutRun, turn: Turn) -> None:
        self.run, self.turn, self.target = run, turn, run.shipment.version
        self.stuck: dict[str, str] = {}
        self.edge_before: dict[str, str] = {}
        self.flipped: set[str] = set()
        self.committed = False
        self.changed: set[str] = set()
        self.mode = "beside"
        self.weak: dict[str, str] = {}
        self.failures: dict[str, str] = {}

    @property
    def hosts(self) -> list[Host]:
        """The hosts to bring."""
        return [
            host
            for host in self.run.fleet.hosts
            if host.name not in self.turn.left_out
            and (not self.turn.only or host.name in self.turn.only)
        ]

    def read_edges(self) -> None:
        """The hosts' states at their edges before us: those of the unfinished rollout count."""
        if self.edge_before:
            return
        self.edge_before = self.run.driver.edge_states()
        if found := self.turn.unfinished:
            self.edge_before |= found.parked
            self.edge_before |= {name: before.edge for name, before in found.touched.items()}

    def park_left_out(self) -> None:
        """No traffic to hosts that are not touched: nobody knows what they answer."""
        states, standby = self.run.driver.edge_states(), self.run.journal.standby()
        for name, why in self.turn.left_out.items():
            if states.get(name, MAINT) == READY:
                out = self._take_out if name in standby else self.quarantine
                out(self.run.fleet.host(name), why)

    # The edges.

    def flip(self, proven: frozenset[str]) -> None:
        """Give the version at every edge that has a proven host; those behind it that are not
        proven get no traffic. Commits when an edge gives it."""
        run = self.run
        wanted: list[str] = []
        if any(host.name not in proven for host in self.hosts):
            self.read_edges()  # who is to be taken out; where all are proven nobody waits for that
        for edge, hosts in self.by_edge().items():
            taking = [h for h in hosts if self.edge_before.get(h.name, READY) == READY]
            if edge in self.flipped or not any(host.name in proven for host in taking):
                continue
            for host in taking:
                if host.name not in proven:
                    self.park(host, f"it has not proven {run.shipment}")
            wanted.append(edge)
        failed = route_edges(run, {edge: Routing(self.target) for edge in wanted})
        self.stuck |= failed
        self.flipped |= set(wanted)
        if set(wanted) - set(failed):
            self.commit()

    def by_edge(self) -> dict[str, list[Host]]:
        found: dict[str, list[Host]] = {}
        for host in self.run.fleet.hosts:
            if host.name not in self.turn.left_out:
                for edge in self.run.driver.edges_of(host):
                    found.setdefault(edge, []).append(host)
        return found

    def commit(self) -> None:
        if self.run.action == "rollback" and not self.committed:
            self.run.commit(self.turn.production, self.turn.reason)
        self.committed = True

    def park(self, host: Host, why: str) -> None:
        """Take a host out of traffic, remembered before; named where that does not work."""
        run = self.run
        if run.driver.edge_states().get(host.name) == MAINT:
            return
        run.record("parked", host=host.name, edge=self.edge_before.get(host.name, READY))
        self.changed.add(host.name)
        try:
            run.log_step(host, "park", why)
            run.driver.set_maintenance(host)
        except LeaseLost:
            raise
        except FleetError as error:
            self.stuck[host.name] = str(error)

    # The hosts.

    def route_rest(self, good: frozenset[str]) -> None:
        """The edges that do not give the version yet, now that its hosts are known."""
        now = self.run.driver.read_routing()
        for edge, routing in now.items():
            if isinstance(routing, str):
                self.stuck.setdefault(edge, routing)
                self.flipped.add(edge)
            elif routing == Routing(self.target):
                self.flipped.add(edge)
                self.commit()
            elif edge not in self.stuck:
                self.flipped.discard(edge)
                self.changed.add(edge)
        if self.turn.only:
            return
        self.flip(good)

    def leave_behind(self, host: Host, problem: str) -> None:
        """A host that cannot be reached. A heal leaves it where its edge has it."""
        if self.run.action == "rollback":
            self.give_up(host, problem)
        else:
            self.stuck[host.name] = problem

    def give_up(self, host: Host, why: str) -> None:
        """Out of traffic and named; the last host of a region stays in it."""
        states = self.run.driver.edge_states()
        if states.get(host.name) == READY and not self.run.driver.peers_up(host):
            why = f"{why} It is the last host of {host.region}, and was left in traffic."
            self.stuck[host.name] = why
            return
        self.stuck[host.name] = why
        self.quarantine(host, why)

    def quarantine(self, host: Host, why: str) -> None:
        run = self.run
        self.changed.add(host.name)
        run.record("quarantined", host=host.name, reason=why)
        self._take_out(host, why)

    def _take_out(self, host: Host, why: str) -> None:
        run = self.run
        run.progress(host.name, "out", f"{why} Back into traffic: fab undrain {host.name}")
        try:
            run.lease.check()
            run.driver.set_maintenance(host)
        except LeaseLost:
            raise
        except FleetError as error:
            self.stuck[host.name] = f"{why} And it could not be taken out of traffic: {error}"

    def fits(self, before: Before) -> bool:
        return before.config is None or model_config.same_interface(
            before.config, self.run.shipment.config
        )
