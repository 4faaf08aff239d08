"""`fab upgrade`: hosts get the control host's environment, programs and units, one after another.

A rollout of its own: it holds the fleet's lock, takes a host out of traffic at every edge of its
region, bootstraps it, and gives it back only when it serves the versions that it served before and
answers their golden examples as before. The first host that does not stays out, and ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

from conf.errors import INCOMPLETE
from conf.site_placement import Placement, peers_of_host
from serving.fleet.bootstrap.changes import HostChange
from serving.fleet.bootstrap.converge import converge, planned_changes, see_serving
from serving.fleet.bootstrap.wheelhouse import Wheelhouse, read_wheelhouse
from serving.fleet.cli.bootstrap import HostSetup, host_facts, root_shell
from serving.fleet.cli.command import Controls
from serving.fleet.errors import FleetError, FleetRefusal
from serving.fleet.haproxy.edge import DRAIN, MAINT, READY, Edge
from serving.fleet.inventory import Host
from serving.fleet.rollout.lease import hold
from serving.fleet.shipment import read_shipment
from serving.fleet.ssh.connection import Shell, open_shell
from serving.fleet.ssh.remote_edge import edge_of
from serving.fleet.ssh.triton import check_golden, ready_versions
from serving.fleet.ssh.verbs import HostVerbs

Progress = Callable[[str, str, str], None]
Serving = dict[str, tuple[int, ...]]
"""Ready versions by model."""


class UpgradeStopped(FleetError):
    """A host was left out of traffic; those before it are upgraded, those after it as before."""

    exit_code = INCOMPLETE


@dataclass(frozen=True)
class HostUpgrade:
    """One host, and the access to it, while it is upgraded."""

    on: HostSetup
    controls: Controls
    host: Host
    wheels: Wheelhouse
    user: str
    key: str
    progress: Progress

    def changes(self) -> list[HostChange]:
        """The changes that the host needs."""
        facts = host_facts(self.on, self.host.name, self.wheels)
        with root_shell(self.on, self.host, self.user, self.key) as root:
            return planned_changes(root, facts)

    def make(self) -> None:
        """Take the host out, bootstrap it, prove it, give it back. Raises FleetError.

        One that was out of traffic before stays out.
        """
        with ExitStack() as held:
            edges = [edge_of(edge) for edge in self.on.fleet.region_of(self.host).edges]
            for edge in edges:
                held.callback(edge.close)
            self._make(edges)

    def _make(self, edges: list[Edge]) -> None:
        name, config = self.host.name, self.controls.config
        ssh = self.on.fleet.ssh_of(self.host)
        with closing(open_shell(self.host, ssh)) as shell:
            before = _serving(shell)
        taken = [edge for edge in edges if edge.state(name).admin == READY]
        for edge in taken:
            _require_peers(edge, name, self.on.fleet.placement)
        for edge in taken:
            edge.set(name, DRAIN)
            edge.wait_idle(name, config.drain_timeout_s)
            edge.set(name, MAINT)
        self.progress(name, "out", "of traffic, idle")
        self._bootstrap()
        self.progress(name, "serves", see_serving(self.host, ssh, config.ready_timeout_s))
        with closing(open_shell(self.host, ssh)) as shell:
            self._prove(shell, before)
        for edge in taken:
            edge.set(name, READY)
            edge.wait_up(name, config.ready_timeout_s)
        self.progress(name, "in", "traffic again" if taken else "no traffic, as before")

    def _bootstrap(self) -> None:
        facts = host_facts(self.on, self.host.name, self.wheels)

        def report(step: str, detail: str) -> None:
            self.progress(self.host.name, step, detail)

        with root_shell(self.on, self.host, self.user, self.key) as root:
            converge(root, facts, self.wheels.folder, True, report)

    def _prove(self, shell: Shell, before: Serving) -> None:
        now = _serving(shell)
        if now != before:
            raise FleetError(f"{self.host.name} served {before} and serves {now}.")
        config, fleet = self.controls.config, self.on.fleet
        for model, versions in before.items():
            for version in versions:
                examples = read_shipment(self.controls.store, model, version).examples
                count = check_golden(
                    shell, model, version, examples, config.warm_up, fleet.infer_timeout_s
                )
                detail = f"{count} golden examples of {model}/{version} equal"
                self.progress(self.host.name, "checked", detail)


def upgrade(
    on: HostSetup,
    controls: Controls,
    names: Sequence[str],
    user: str,
    key: str,
    plan: bool,
    progress: Progress,
) -> list[str]:
    """Upgrade the hosts `names`, all without names; returns lines for people.

    Raises Locked, FleetRefusal, UpgradeStopped for the host that was left out of traffic.
    """
    wheels = read_wheelhouse(on.settings)
    hosts = [on.fleet.host(name) for name in names] or list(on.fleet.hosts)
    steps = [HostUpgrade(on, controls, host, wheels, user, key, progress) for host in hosts]
    wanted = [(step, changes) for step in steps if (changes := step.changes())]
    if plan:
        return [f"{step.host.name}: {change}" for step, changes in wanted for change in changes] + [
            f"{len(wanted)} of {len(hosts)} hosts change, one after another."
        ]
    upgraded: list[str] = []

    def waiting(sentence: str) -> None:
        progress("fleet", "lock", sentence)

    if wanted:
        with hold(controls.journal.folder, "upgrade", controls.config.lock_ttl_s, waiting) as lease:
            for step, _ in wanted:
                lease.check()
                _make(step, upgraded)
    return [f"{len(upgraded)} of {len(hosts)} hosts upgraded, the others need no change."]


def _make(step: HostUpgrade, upgraded: list[str]) -> None:
    try:
        step.make()
    except FleetRefusal:
        raise
    except (FleetError, OSError) as error:
        name = step.host.name
        raise UpgradeStopped(
            f"{error} {name} is out of traffic; upgraded before it: {', '.join(upgraded) or 'none'}"
            f"; the others are as they were. Mend it, type fab upgrade --hosts {name}, then fab "
            "heal, which gives it back."
        ) from error
    upgraded.append(step.host.name)


def _serving(shell: Shell) -> Serving:
    models = HostVerbs(shell).call("facts", "all")["models"]
    found = {str(model): ready_versions(shell, str(model)) for model in sorted(models)}
    return {model: versions for model, versions in found.items() if versions}


def _require_peers(edge: Edge, name: str, placement: Placement) -> None:
    states = edge.states()
    for peers in peers_of_host(placement, name, states):
        if not any(states[host].takes_traffic for host in peers):
            raise FleetRefusal(
                f"{name} is the only host in traffic at the edge {edge.name} for a model that it "
                "serves; it was not touched. Bring another one up first: fab status."
            )
