"""A serving host as a machine of `fab upgrade`: out of traffic, made anew, proven, given back."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from conf.site_placement import peers_of_host
from serving.fleet.bootstrap.changes import HostChange, environment_digests
from serving.fleet.bootstrap.converge import converge, planned_changes, see_serving
from serving.fleet.bootstrap.facts import HostFact
from serving.fleet.cli.bootstrap import host_facts, root_shell
from serving.fleet.cli.upgrade_order import UpgradeOrder
from serving.fleet.errors import FleetError, FleetRefusal
from serving.fleet.haproxy.edge import DRAIN, MAINT, READY, Edge
from serving.fleet.inventory import Host
from serving.fleet.rollout.upgrades import Serving
from serving.fleet.shipment import read_shipment
from serving.fleet.ssh.connection import Shell, open_shell
from serving.fleet.ssh.triton import check_golden, ready_versions
from serving.fleet.ssh.verbs import HostVerbs


@dataclass(frozen=True)
class HostUpgrade:
    """One host, its changes, and the edges in front of it."""

    order: UpgradeOrder
    host: Host
    facts: Sequence[HostFact]
    changes: Sequence[HostChange]
    front: Sequence[Edge]

    @property
    def name(self) -> str:
        return self.host.name

    @property
    def digests(self) -> tuple[str, str]:
        return environment_digests(self.facts, self.changes)

    def serving(self) -> Serving:
        with closing(self._shell()) as shell:
            return _serving(shell)

    def edges(self) -> tuple[str, ...]:
        return tuple(edge.name for edge in self._giving())

    def refuse_last(self) -> None:
        for edge in self._giving():
            states = edge.states()
            for peers in peers_of_host(self.order.on.fleet.placement, self.name, states):
                if not any(states[host].takes_traffic for host in peers):
                    raise FleetRefusal(
                        f"{self.name} is the only host in traffic at the edge {edge.name} for a "
                        "model that it serves; it was not touched. Bring another one up first: "
                        "fab status."
                    )

    def take_out(self) -> None:
        for edge in self._giving():
            edge.set(self.name, DRAIN)
            edge.wait_idle(self.name, self.order.controls.config.drain_timeout_s)
            edge.set(self.name, MAINT)
        self._report("out", "of traffic, idle")

    def make(self) -> None:
        order = self.order
        with root_shell(order.on, self.host, order.user, order.key) as root:
            converge(root, self.facts, order.wheels.folder, True, self._report)
        ssh, timeout_s = order.on.fleet.ssh_of(self.host), order.controls.config.ready_timeout_s
        self._report("serves", see_serving(self.host, ssh, timeout_s))

    def prove(self, before: Serving) -> None:
        with closing(self._shell()) as shell:
            now = _serving(shell)
            if now != before:
                raise FleetError(f"{self.name} served {dict(before)} and serves {now}.")
            for model, versions in before.items():
                for version in versions:
                    self._check_golden(shell, model, version)

    def give_back(self, edges: Sequence[str]) -> None:
        for edge in (one for one in self.front if one.name in edges):
            edge.set(self.name, READY)
            edge.wait_up(self.name, self.order.controls.config.ready_timeout_s)
        self._report("in", "traffic again" if edges else "no traffic, as before")

    def _giving(self) -> list[Edge]:
        return [edge for edge in self.front if edge.state(self.name).admin == READY]

    def _shell(self) -> Shell:
        return open_shell(self.host, self.order.on.fleet.ssh_of(self.host))

    def _check_golden(self, shell: Shell, model: str, version: int) -> None:
        controls = self.order.controls
        examples = read_shipment(controls.store, model, version).examples
        warm_up, timeout_s = controls.config.warm_up, self.order.on.fleet.infer_timeout_s
        count = check_golden(shell, model, version, examples, warm_up, timeout_s)
        self._report("checked", f"{count} golden examples of {model}/{version} equal")

    def _report(self, step: str, detail: str) -> None:
        self.order.progress(self.name, step, detail)


def host_upgrade(order: UpgradeOrder, host: Host, front: Sequence[Edge]) -> HostUpgrade:
    """Compare `host`, behind the edges `front`. Raises FleetError, Unreachable."""
    facts = host_facts(order.on, host.name, order.wheels)
    with root_shell(order.on, host, order.user, order.key) as root:
        return HostUpgrade(order, host, facts, planned_changes(root, facts), front)


def _serving(shell: Shell) -> dict[str, tuple[int, ...]]:
    models = HostVerbs(shell).call("facts", "all")["models"]
    found = {str(model): ready_versions(shell, str(model)) for model in sorted(models)}
    return {model: versions for model, versions in found.items() if versions}
