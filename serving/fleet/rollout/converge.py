"""The fleet brought to a version that it had: rollback and heal. Nothing of it is ever undone.

An emergency has one order: first the requests, then the hosts. Where the journal has the version
proven on hosts, the edges are moved at once and no host is waited for; the ledger line follows, and
only then is each host read and proven. A host that fails is taken out of traffic at its edge,
restarted, and given back or quarantined; one that cannot be reached is named. None blocks another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from conf.errors import DONE, INCOMPLETE, UNREACHABLE
from serving.fleet.errors import FleetError
from serving.fleet.haproxy.edge import MAINT, READY
from serving.fleet.inventory import Host
from serving.fleet.rollout.clean_up import clean_host
from serving.fleet.rollout.driver import HostState
from serving.fleet.rollout.host import activate, await_quiet, prepare, prove, read
from serving.fleet.rollout.journal import Unfinished
from serving.fleet.rollout.lease import LeaseLost
from serving.fleet.rollout.records import Before
from serving.fleet.rollout.rollout_config import Outcome
from serving.fleet.rollout.rollout_plan import Change, as_it_is, faults, served_set
from serving.fleet.rollout.rollout_run import Abandoned, RolloutRun
from serving.fleet.rollout.shifting import record_counters
from serving.fleet.rollout.traffic import route_edges
from serving.fleet.routing import Routing
from serving.triton import model_config

_READERS = 16


@dataclass(frozen=True)
class Turn:
    """What a rollback or a heal knows before it begins.

    `warm` are hosts that have the version proven by the journal, `left_out` those that get no
    traffic and are not touched, `only` the ones to bring (empty: all), `production` the version in
    the ledger. `unfinished` is the rollout that this one ends.
    """

    warm: frozenset[str] = frozenset()
    left_out: Mapping[str, str] = field(default_factory=dict)
    only: frozenset[str] = frozenset()
    production: int | None = None
    unfinished: Unfinished | None = None
    reason: str = ""


def converge(run: RolloutRun, turn: Turn) -> Outcome:
    """Bring the fleet to the version of `run`. Raises LeaseLost, and nothing else for what the
    fleet does."""
    return _Convergence(run, turn).carry_out()


class _Convergence:
    """One pass over the fleet. `stuck` grows by a sentence for each host and edge left behind.

    `flipped` are edges that give the version or were tried in vain, `weak` hosts that answer for it
    and need a restart all the same, `failures` the reason why a host does not answer for it.
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

    def carry_out(self) -> Outcome:
        run, turn = self.run, self.turn
        run.record(
            "started", action=run.action, reason=turn.reason, digest=run.shipment.digest,
            strategy=run.config.strategy, previous=turn.production,
            resumes=turn.unfinished.rollout if turn.unfinished else None,
            left_out=dict(turn.left_out),
        )  # fmt: skip
        record_counters(run)
        try:
            self._read_edges()
            self._park_left_out()
            if run.action == "rollback":
                self._flip(turn.warm)
            self._bring_hosts()
        except (KeyboardInterrupt, Abandoned) as error:
            why = str(error) or "interrupted at the keyboard"
            if not self.committed:
                what = "the edges may differ: go on with the same command"
            else:
                what = f"{run.shipment} is in production, and its hosts are not all checked"
            run.record("interrupted", reason=why, left=what)
            return Outcome("incomplete", f"{why}; {what}.", self.stuck, INCOMPLETE)
        return self._end()

    def _end(self) -> Outcome:
        run = self.run
        record_counters(run)
        hosts = tuple(host.name for host in run.fleet.hosts if host.name in self.changed)
        if run.action == "rollback" and not self.committed:
            reason = " ".join(self.stuck.values()) or "no edge gives it"
            run.record("refused", reason=reason, stuck=self.stuck)
            return Outcome("refused", reason, self.stuck, UNREACHABLE)
        if self.stuck:
            run.record("incomplete", stuck=self.stuck)
            return Outcome("incomplete", "", self.stuck, INCOMPLETE, hosts)
        run.record("done", digest=run.shipment.digest)
        if run.action == "heal" and not self.changed:
            return Outcome("unchanged", f"every host serves {run.shipment}", exit_code=DONE)
        return Outcome("done", hosts=hosts)

    def _read_edges(self) -> None:
        """The edges' states before us: those of the unfinished rollout count."""
        self.edge_before = self.run.driver.edge_states()
        if found := self.turn.unfinished:
            self.edge_before |= found.parked
            self.edge_before |= {name: before.edge for name, before in found.touched.items()}

    def _park_left_out(self) -> None:
        states = self.run.driver.edge_states()
        for name, why in self.turn.left_out.items():
            if states.get(name, MAINT) == READY:
                self._quarantine(self.run.fleet.host(name), why)

    # The edges.

    def _flip(self, proven: frozenset[str]) -> None:
        """Give the version at every edge that has a proven host; those behind it that are not
        proven get no traffic. Commits when an edge gives it."""
        run = self.run
        wanted: list[str] = []
        for edge, hosts in self._by_edge().items():
            taking = [h for h in hosts if self.edge_before.get(h.name, READY) == READY]
            if edge in self.flipped or not any(host.name in proven for host in taking):
                continue
            for host in taking:
                if host.name not in proven:
                    self._park(host, f"it has not proven {run.shipment}")
            wanted.append(edge)
        failed = route_edges(run, {edge: Routing(self.target) for edge in wanted})
        self.stuck |= failed
        self.flipped |= set(wanted)
        if set(wanted) - set(failed):
            self._commit()

    def _by_edge(self) -> dict[str, list[Host]]:
        found: dict[str, list[Host]] = {}
        for host in self.run.fleet.hosts:
            if host.name not in self.turn.left_out:
                for edge in self.run.driver.edges_of(host):
                    found.setdefault(edge, []).append(host)
        return found

    def _commit(self) -> None:
        if self.run.action == "rollback" and not self.committed:
            self.run.commit(self.turn.production, self.turn.reason)
        self.committed = True

    def _park(self, host: Host, why: str) -> None:
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

    def _bring_hosts(self) -> None:
        states = self.run.driver.read_hosts(verify=self.run.action == "heal")
        readable = [host for host in self.hosts if not states[host.name].problem]
        for host in self.hosts:
            if problem := states[host.name].problem:
                self._leave_behind(host, problem)
        before = {host.name: as_it_is(states[host.name]) for host in readable}
        self.mode = "beside" if all(map(self._fits, before.values())) else "swap"
        good = self._proven(readable, states)
        if self.mode == "swap":
            self._swap(readable, states, good)
        else:
            self._prepare_cold(readable, states, good)
        self._route_rest(frozenset(good))
        for host in readable:
            if self.mode == "beside" and (host.name not in good or host.name in self.weak):
                self._mend(host, states[host.name], good)
        self._route_rest(frozenset(good))
        for host in readable:
            if host.name in good:
                self._finish(host, before[host.name])

    def _fits(self, before: Before) -> bool:
        return before.config is None or model_config.same_interface(
            before.config, self.run.shipment.config
        )

    def _proven(self, hosts: list[Host], states: Mapping[str, HostState]) -> set[str]:
        """The hosts that serve the version and answer its golden questions."""
        run, good = self.run, set[str]()

        def check(host: Host) -> None:
            state = states[host.name]
            if not state.alive or self.target not in state.serving:
                return
            try:
                prove(run, host, (self.target,))
            except LeaseLost:
                raise
            except FleetError as error:
                self.failures[host.name] = str(error)
                return
            good.add(host.name)
            self._weigh(host, state)

        run.each(hosts, check, _READERS)
        return good

    def _weigh(self, host: Host, state: HostState) -> None:
        """Whether a host that answers is whole: its files, and the version before as a way back."""
        run = self.run
        others = served_set(self.target, state.serving, True)[:-1]
        why = faults(state, run.shipment.model, (self.target,))
        if dict(state.packages).get(self.target) != run.shipment.digest:
            why = why or f"its package {run.shipment} is not the released one"
        try:
            prove(run, host, others)
        except LeaseLost:
            raise
        except FleetError as error:
            why, others = why or str(error), ()
        run.record_proven(host, (*others, self.target))
        if why and run.action == "heal":
            self.weak[host.name] = why

    def _prepare_cold(
        self, hosts: list[Host], states: Mapping[str, HostState], good: set[str]
    ) -> None:
        """Load the version beside what serves, on each host that lacks it and can do that."""
        run = self.run

        routing = run.driver.read_routing().values()
        given = {one.version for one in routing if isinstance(one, Routing) and one.version}

        def load(host: Host) -> None:
            state = states[host.name]
            if host.name in good or not state.alive or self.target in state.serving:
                return
            self.changed.add(host.name)
            before = replace(as_it_is(state), edge=self.edge_before.get(host.name, state.edge))
            try:
                run.log_step(host, "staged", run.driver.stage(host, run.shipment, rollback=True))
                change = replace(self._change(host, before), parked=state.edge != before.edge)
                prepare(run, change, given & set(before.served))
            except LeaseLost:
                raise
            except FleetError as error:
                self.failures[host.name] = str(error)
                run.progress(host.name, "failed", str(error))
                return
            good.add(host.name)

        # A restart takes its host out of traffic: one at a time.
        limit = 1 if run.config.strategy == "restart" else run.config.parallel
        run.each(hosts, load, limit)

    def _swap(self, hosts: list[Host], states: Mapping[str, HostState], good: set[str]) -> None:
        """Host by host, drained: the version cannot lie beside the one that serves."""
        run = self.run
        self.stuck |= route_edges(run, {edge: Routing() for edge in self._by_edge()})
        for host in hosts:
            state = states[host.name]
            if state.serving == (self.target,) and host.name in good:
                continue
            self.changed.add(host.name)
            before = replace(as_it_is(state), edge=self.edge_before.get(host.name, state.edge))
            run.record("parked", host=host.name, edge=before.edge)
            try:
                run.log_step(host, "staged", run.driver.stage(host, run.shipment, rollback=True))
                activate(run, Change(host, before, (self.target,), "", (self.target,),
                                     restart=not state.alive))  # fmt: skip
            except LeaseLost:
                raise
            except FleetError as error:
                good.discard(host.name)
                self._give_up(host, str(error))
                continue
            good.add(host.name)

    def _route_rest(self, good: frozenset[str]) -> None:
        """The edges that do not give the version yet, now that its hosts are known."""
        now = self.run.driver.read_routing()
        for edge, routing in now.items():
            if isinstance(routing, str):
                self.stuck.setdefault(edge, routing)
                self.flipped.add(edge)
            elif routing == Routing(self.target):
                self.flipped.add(edge)
                self._commit()
            elif edge not in self.stuck:
                self.flipped.discard(edge)
                self.changed.add(edge)
        if self.turn.only:
            return
        self._flip(good)

    def _mend(self, host: Host, state: HostState, good: set[str]) -> None:
        """A host that failed: out of traffic, restarted, proven; else quarantined. One that still
        serves what its edge gives is left as it is, as is the last of its region."""
        run, weak = self.run, host.name in self.weak
        why = self.weak.get(host.name) or self.failures.get(host.name) or "it does not answer"
        self.changed.add(host.name)
        edges = run.driver.edges_of(host)
        given = all(edge in self.flipped and edge not in self.stuck for edge in edges)
        if state.alive and (weak or not given) and not (weak and run.driver.peers_up(host)):
            self.stuck[host.name] = f"{why} It was left as it is: its requests need it."
            return
        before = replace(as_it_is(state), edge=self.edge_before.get(host.name, state.edge))
        self._park(host, why)
        if host.name in self.stuck:
            return
        try:
            run.log_step(host, "staged", run.driver.stage(host, run.shipment, rollback=True))
            versions = served_set(self.target, before.served, self._fits(before))
            change = Change(host, before, versions, why, versions, restart=True, parked=True)
            prepare(run, change, versions if run.action == "heal" else ())
        except LeaseLost:
            raise
        except FleetError as error:
            good.discard(host.name)
            self._give_up(host, str(error))
            return
        good.add(host.name)

    def _finish(self, host: Host, before: Before) -> None:
        """Exactly the versions that it shall have, and back into the traffic it had."""
        run = self.run
        edges = run.driver.edges_of(host)
        if any(edge in self.stuck for edge in edges):
            return  # its edge may still give another version: that one must stay
        try:
            await_quiet(run, host)
        except LeaseLost:
            raise
        except FleetError as error:
            run.progress(host.name, "wait", str(error))
        try:
            versions = served_set(self.target, before.served, self._fits(before))
            if read(run, host).serving != versions:
                self.changed.add(host.name)
            clean_host(run, host, versions)
        except LeaseLost:
            raise
        except FleetError as error:
            run.progress(host.name, "clean", f"skipped: {error}")
        wanted = self.edge_before.get(host.name, READY)
        try:
            if read(run, host).edge != wanted:
                self.changed.add(host.name)
                run.log_step(host, "undrain" if wanted == READY else "keep", f"{wanted} again")
                run.driver.set_edge(host, wanted)
        except LeaseLost:
            raise
        except FleetError as error:
            self._give_up(host, str(error))

    def _change(self, host: Host, before: Before) -> Change:
        prepared = tuple(sorted({*before.served, self.target}))
        return Change(host, before, (self.target,), "", prepared)

    def _leave_behind(self, host: Host, problem: str) -> None:
        """A host that cannot be reached. A heal leaves it where its edge has it."""
        if self.run.action == "rollback":
            self._give_up(host, problem)
        else:
            self.stuck[host.name] = problem

    def _give_up(self, host: Host, why: str) -> None:
        """Out of traffic and named; the last host of a region stays in it."""
        states = self.run.driver.edge_states()
        if states.get(host.name) == READY and not self.run.driver.peers_up(host):
            why = f"{why} It is the last host of {host.region}, and was left in traffic."
            self.stuck[host.name] = why
            return
        self.stuck[host.name] = why
        self._quarantine(host, why)

    def _quarantine(self, host: Host, why: str) -> None:
        run = self.run
        self.changed.add(host.name)
        run.record("quarantined", host=host.name, reason=why)
        run.progress(host.name, "out", f"{why} Back into traffic: fab undrain {host.name}")
        try:
            run.lease.check()
            run.driver.set_maintenance(host)
        except LeaseLost:
            raise
        except FleetError as error:
            self.stuck[host.name] = f"{why} And it could not be taken out of traffic: {error}"
