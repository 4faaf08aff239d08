"""A fleet in memory behind `FleetDriver`, in which any step can fail or be the last.

It keeps the rules of the real one: a host may be loaded beside what it serves, a restarted Triton
serves what its config says, an edge gives each request the version of its map, and a host that
lacks that version answers nothing. What a client could notice is written down after each change:
`outages` are regions without an answer, `unproven` hosts that were given requests for a version
that they do not serve, or that nobody had checked on them.
"""

from __future__ import annotations

from collections.abc import Callable

from serving.fleet.canary.evidence import ProbeSample
from serving.fleet.errors import FleetError, StuckVersion, Unreachable
from serving.fleet.inventory import Host
from serving.fleet.rollout.driver import HostState, Traffic
from serving.fleet.rollout.lease import LeaseLost
from serving.fleet.shipment import Shipment
from serving.fleet.simulation.machines import Late, SimulatedHost
from serving.fleet.simulation.simulated_edges import Killed, SimulatedEdges
from serving.triton import model_config

__all__ = ["Killed", "SimulatedDriver"]


class SimulatedDriver(SimulatedEdges):
    """The hosts: what each was given, and what it then answers."""

    def _change(
        self, host: Host, what: str, effect: Callable[[SimulatedHost], None], ssh: bool = True
    ) -> None:
        with self.lock:
            machine = self.machines[host.name]
            if ssh:
                self._reach(host)
                if self.fence < machine.fence:
                    raise LeaseLost(f"{host.name} has seen the controller {machine.fence}")
                machine.fence = self.fence
            failing = self._count(f"{what} {host.name}")
            if failing and self.hang and what == "serve":
                machine.late = Late(2, self._newest(machine, effect), effect)
                self._fail(host.name, what)
            if failing and not self.late:
                self._fail(host.name, what)
            effect(machine)
            self._observe()
            if failing:
                self._fail(host.name, what)

    def _newest(
        self, machine: SimulatedHost, effect: Callable[[SimulatedHost], None]
    ) -> int | None:
        trial = SimulatedHost(machine.serving, machine.config)
        effect(trial)
        return max(set(trial.serving) - set(machine.serving), default=None)

    def read_host(self, host: Host) -> HostState:
        """The host as it is."""
        with self.lock:
            machine = self.machines[host.name]
            if not machine.reachable:
                problem = f"{host.name} does not answer on SSH."
                return HostState(host.name, host.region, edge=machine.edge, problem=problem)
            self._land(machine)
            golden = tuple((v, "every answer is 500") for v in sorted(machine.dead))
            return HostState(
                host.name, host.region, machine.serving if machine.alive else (), machine.config,
                tuple(sorted(machine.packages.items())), machine.edge, machine.alive,
                machine.alive, machine.verification(), machine.highest,
                unready=machine.unready(), golden=golden,
                instances=machine.loaded if machine.alive and machine.serving else None,
                max_instances=machine.max_instances,
            )  # fmt: skip

    def _land(self, machine: SimulatedHost) -> None:
        if machine.late:
            machine.late.reads -= 1
            if machine.late.reads <= 0:
                late, machine.late = machine.late, None
                late.land(machine)
                self._observe()

    def read_hosts(self, verify: bool = False) -> dict[str, HostState]:
        """Every host as it is."""
        return {host.name: self.read_host(host) for host in self.fleet.hosts}

    def probe(self, host: Host, version: int) -> ProbeSample:
        """One golden question, answered in a millisecond."""
        with self.lock:
            self._reach(host)
            machine = self.machines[host.name]
            if not machine.answers(version):
                return ProbeSample(0.001, "every answer is 500")
            wrong = version in self.wrong
            return ProbeSample(0.001, "another answer" if wrong else "", wrong)

    def memory_bytes(self, host: Host) -> int | None:
        """None: no memory is simulated."""
        self._reach(host)
        return None

    def stage(self, host: Host, shipment: Shipment, rollback: bool) -> str:
        """Accept the package, unless it is older than the highest and this is no rollback."""
        self._reach(host)
        self._refuse_older(host, shipment.version, rollback)
        self.configs[shipment.version] = shipment.config

        def accept(machine: SimulatedHost) -> None:
            machine.packages[shipment.version] = shipment.digest
            machine.highest = max(machine.highest, shipment.version)

        self._change(host, "stage", accept)
        return "staged"

    def _refuse_older(self, host: Host, version: int, rollback: bool) -> None:
        if version < self.machines[host.name].highest and not rollback:
            raise FleetError(f"{host.name}: toy/{version} is older than the highest accepted")

    def _config(self, host: Host, versions: tuple[int, ...], rollback: bool) -> str:
        """The host's own: from the verified package of the highest."""
        self._reach(host)
        machine = self.machines[host.name]
        missing = set(versions) - set(machine.packages)
        if missing:
            raise FleetError(f"{host.name}: no verified package of toy/{min(missing)}")
        self._refuse_older(host, max(versions), rollback)
        text = self.configs[max(versions)]
        if machine.scaled is not None:
            text = model_config.with_instances(text, machine.scaled)
        return model_config.with_versions(text, versions)

    def drain(self, host: Host) -> None:
        """Into drain, if it is not in maintenance."""
        self._set_edge(host, "drain", lambda now: "drain" if now == "ready" else now)

    def set_maintenance(self, host: Host) -> None:
        """Into maintenance."""
        self._set_edge(host, "park", lambda _: "maint")

    def set_edge(self, host: Host, state: str) -> None:
        """Into `state`; `ready` needs a Triton that answers."""
        if state == "ready":
            self._reach(host)
            if not self.machines[host.name].alive:
                raise Unreachable(f"{host.name}: its Triton did not answer.")
        self._set_edge(host, f"edge {state}", lambda _: state)

    def _set_edge(self, host: Host, what: str, state: Callable[[str], str]) -> None:
        for name in self.edges_of(host):
            if not self.edges[name].reachable:
                raise Unreachable(f"the edge {name} does not answer.")

        def change(machine: SimulatedHost) -> None:
            machine.edge = state(machine.edge)

        self._change(host, what, change, ssh=False)

    def install(self, host: Host, shipment: Shipment) -> None:
        """Into the repository, from the verified package."""
        self._config(host, (shipment.version,), rollback=True)

        def place(machine: SimulatedHost) -> None:
            machine.installed.add(shipment.version)
            machine.tampered.discard(shipment.version)

        self._change(host, "install", place)

    def persist(self, host: Host, versions: tuple[int, ...], rollback: bool) -> None:
        """Into the config of the next start."""
        config = self._config(host, versions, rollback) if versions else None

        def write(machine: SimulatedHost) -> None:
            machine.config = config
            machine.installed |= set(versions)
            machine.tampered -= set(versions)

        self._change(host, "persist", write)

    def serve(self, host: Host, versions: tuple[int, ...], rollback: bool) -> None:
        """Exactly these versions ready. Raises FleetError for one that will not unload."""
        config = self._config(host, versions, rollback)
        machine = self.machines[host.name]
        if not machine.alive:
            raise Unreachable(f"{host.name}: its Triton does not answer.")
        if machine.late:
            late, machine.late = machine.late, None
            late.land(machine)  # the host takes one change after the other

        def load(machine: SimulatedHost) -> None:
            machine.installed |= set(versions)
            machine.serve(versions)
            machine.loaded = model_config.instances_in(config)

        self._change(host, "serve", load)
        if machine.stuck:
            raise StuckVersion(f"{host.name}: toy/{min(machine.stuck)} is still UNLOADING")

    def scale(self, host: Host, instances: int | None) -> None:
        """Remembered, and in the config of the next start. Raises FleetError above its limit."""
        self._reach(host)
        machine = self.machines[host.name]
        if instances is not None and instances > machine.max_instances:
            raise FleetError(f"{host.name}: scale: at most {machine.max_instances}")

        def remember(machine: SimulatedHost) -> None:
            machine.scaled = instances
            if versions := model_config.versions_in(machine.config):
                machine.config = self._config(host, versions, rollback=True)

        self._change(host, "scale", remember)

    def withdraw(self, host: Host) -> None:
        """No version ready."""
        self._change(host, "withdraw", lambda machine: machine.serve(()))

    def restart(self, host: Host) -> None:
        """Start Triton again; only one that is in maintenance may be."""
        self._reach(host)
        if self.machines[host.name].edge != "maint":
            raise AssertionError("only a parked host may be restarted")
        self._change(host, "restart", SimulatedHost.restart)

    def check_golden(self, host: Host, version: int) -> str:
        """Equal, or a FleetError."""
        machine = self.machines[host.name]
        self._change(host, "check", lambda machine: None)
        if not machine.alive or version not in machine.serving:
            raise FleetError(f"{host.name}: toy/{version} is not ready.")
        if version in self.wrong or version in machine.dead:
            raise FleetError(f"{host.name}: golden example 0 of toy/{version} differs")
        machine.proven.add(version)
        return "equal"

    def watch(self, host: Host) -> Traffic:
        """Ten good requests."""
        self._change(host, "watch", lambda machine: None)
        return Traffic(10, 0)

    def prune(self, host: Host, serving: tuple[int, ...], production: int) -> None:
        """Out with what is not served."""
        self._reach(host)
        machine = self.machines[host.name]
        if not set(machine.serving) <= set(serving):
            raise AssertionError("what is served may not be pruned")
        machine.installed &= set(serving)
