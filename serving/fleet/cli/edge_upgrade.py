"""An edge's own machine as a machine of `fab upgrade`: HAProxy is reloaded, never restarted.

What the distribution, the site or this checkout has anew is taken up by another worker of HAProxy,
while the one before ends what it has; then the map and the states must be as they were, a client
be answered, and a config with which they are not is taken back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from serving.fleet.bootstrap.converge import planned_changes
from serving.fleet.bootstrap.facts import HostFact
from serving.fleet.bootstrap.host_side import DIGEST_LETTERS
from serving.fleet.cli.bootstrap import machine, root_shell
from serving.fleet.cli.edge_bootstrap import (
    config_changes,
    edge_facts,
    edge_named,
    edge_state,
    make_edge,
)
from serving.fleet.cli.upgrade_order import UpgradeOrder
from serving.fleet.errors import FleetError
from serving.fleet.inventory import FleetEdge
from serving.fleet.rollout.upgrades import Serving
from serving.fleet.routing import Routing
from serving.fleet.ssh.edge_rollout import see_edge
from serving.fleet.ssh.remote_edge import edge_of

Kept = tuple[Mapping[str, Routing], Mapping[str, str]]
"""The routing by model, and the states that hosts were put into."""


@dataclass(frozen=True)
class EdgeUpgrade:
    """One edge and its changes. `digests` are of its config, `kept` is what a reload must keep."""

    order: UpgradeOrder
    edge: FleetEdge
    facts: Sequence[HostFact]
    changes: Sequence[object]
    digests: tuple[str, str]
    kept: Kept

    @property
    def name(self) -> str:
        return self.edge.name

    def serving(self) -> Serving:
        return {}

    def edges(self) -> tuple[str, ...]:
        return ()

    def refuse_last(self) -> None:
        pass  # a reload takes nobody out of traffic

    def take_out(self) -> None:
        pass

    def make(self) -> None:
        order = self.order
        make_edge(
            order.on, self.name, self.facts, order.wheels, order.user, order.key, self._report
        )

    def prove(self, before: Serving) -> None:
        self._report("serves", see_edge(self.edge, self.order.on.settings.start_timeout_s))
        now = _kept(self.edge)
        if now != self.kept:
            raise FleetError(f"the edge {self.name} had {self.kept} and has {now}.")
        self._report("checked", "its map and the states of its hosts are as they were")

    def give_back(self, edges: Sequence[str]) -> None:
        pass

    def _report(self, step: str, detail: str) -> None:
        self.order.progress(self.name, step, detail)


def edge_upgrade(order: UpgradeOrder, name: str) -> EdgeUpgrade:
    """Compare the machine of the edge `name`, and its config. Raises FleetError, Unreachable."""
    on, edge = order.on, edge_named(order.on, name)
    facts = edge_facts(on, name, order.wheels)
    with root_shell(on, machine(on, name), order.user, order.key) as root:
        changes = planned_changes(root, facts)
    config = edge_state(on, name)
    digests = (_digest(config.current), _digest(config.wanted))
    every = [*changes, *config_changes(config)]
    return EdgeUpgrade(order, edge, facts, every, digests, _kept(edge))


def _kept(edge: FleetEdge) -> Kept:
    with closing(edge_of(edge)) as opened:
        states = {name: state.admin for name, state in opened.all_states().items()}
        return opened.routes(), states


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LETTERS]
