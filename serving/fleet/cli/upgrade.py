"""`fab upgrade`: machines get the control host's environment, programs and units, one by one.

A rollout of its own: it holds the fleet's lock, takes a host out of traffic at every edge of its
region, bootstraps it, and gives it back only when it serves the versions that it served before and
answers their golden examples as before. The first host that does not stays out, and ends it. Each
step is in the journal, so that the next upgrade goes on with a host that was left half-way. An edge
on a machine of its own is upgraded where it is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime

from serving.fleet.cli.bootstrap import machine
from serving.fleet.cli.command import held
from serving.fleet.cli.edge_upgrade import EdgeUpgrade, edge_upgrade
from serving.fleet.cli.host_upgrade import HostUpgrade, host_upgrade
from serving.fleet.cli.upgrade_order import UpgradeOrder
from serving.fleet.rollout.upgrade_walk import UpgradeWalk
from serving.fleet.rollout.upgrades import open_upgrade
from serving.fleet.ssh.remote_edge import edge_of


def upgrade(order: UpgradeOrder, names: Sequence[str], reason: str) -> list[str]:
    """Upgrade the hosts and edges `names`, every host without names, those that an earlier upgrade
    left half-way before them; returns lines for people.

    Raises Locked, FleetRefusal, UpgradeStopped for the machine that was left half-way.
    """
    controls, upgrade_id = order.controls, f"{datetime.now(UTC):%Y%m%d-%H%M%S}-upgrade"
    with held(controls, f"upgrade {upgrade_id}", order.progress) as lease, ExitStack() as opened:
        found = open_upgrade(controls.journal.events())
        left = found.left if found else {}
        fleet = order.on.fleet
        there = [*(host.name for host in fleet.hosts), *(edge.name for edge in fleet.edges)]
        half_way = [name for name in there if name in left]
        named = list(dict.fromkeys([*half_way, *_names(order, names)]))
        compared = _compared(order, named, opened)
        wanted = [one for one in compared if one.changes or one.name in left]
        if wanted or found:
            UpgradeWalk(upgrade_id, controls.journal, lease).run(wanted, found, reason)
    return [f"{len(wanted)} of {len(named)} machines upgraded, the others need no change."]


def upgrade_plan(order: UpgradeOrder, names: Sequence[str]) -> list[str]:
    """Lines with the changes of `upgrade`; changes nothing and takes no lock."""
    with ExitStack() as opened:
        compared = _compared(order, _names(order, names), opened)
    lines = [f"{one.name}: {change}" for one in compared for change in one.changes]
    count = sum(bool(one.changes) for one in compared)
    return [*lines, f"{count} of {len(compared)} machines change, one after another."]


def _names(order: UpgradeOrder, names: Sequence[str]) -> list[str]:
    """The machines that are named, or every host. Raises FleetConfigError."""
    hosts = [host.name for host in order.on.fleet.hosts]
    return [machine(order.on, name).name for name in names] or hosts


def _compared(
    order: UpgradeOrder, names: Sequence[str], opened: ExitStack
) -> list[HostUpgrade | EdgeUpgrade]:
    """The machines against the site. The edges of hosts are closed with `opened`."""
    fleet = order.on.fleet
    edges = {edge.name: edge_of(edge) for edge in fleet.edges}
    for edge in edges.values():
        opened.callback(edge.close)
    made: list[HostUpgrade | EdgeUpgrade] = []
    hosts = {host.name: host for host in fleet.hosts}
    for name in names:
        if name in hosts:
            front = [edges[one.name] for one in fleet.region_of(hosts[name]).edges]
            made.append(host_upgrade(order, hosts[name], front))
        else:
            made.append(edge_upgrade(order, name))
    return made
