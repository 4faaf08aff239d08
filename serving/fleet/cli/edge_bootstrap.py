"""`fab bootstrap EDGE`: a bare machine becomes an edge, or an edge is mended.

fab pin us-east --fingerprint SHA256:...           from the machine's own console
fab bootstrap us-east --key ~/.ssh/root            at the end "us-east is an edge: ..."
fab bootstrap us-east --key ~/.ssh/root            "us-east: no change. us-east is an edge: ..."
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from serving.fleet.bootstrap.converge import converge, planned_changes
from serving.fleet.bootstrap.edge_layout import edge_layout
from serving.fleet.bootstrap.edge_machine import edge_machine
from serving.fleet.bootstrap.edge_units import EDGE
from serving.fleet.bootstrap.facts import HostFact
from serving.fleet.bootstrap.wheelhouse import NODE_EXPORTER, Wheelhouse, read_wheelhouse
from serving.fleet.cli.bootstrap import (
    BootstrapReport,
    HostSetup,
    Progress,
    bootstrap_report,
    deploy_public_key,
    machine,
    root_shell,
)
from serving.fleet.cli.edge_configs import changed_lines
from serving.fleet.errors import FleetError
from serving.fleet.inventory import FleetEdge
from serving.fleet.ssh.edge_rollout import (
    EdgeChange,
    edge_change,
    roll_edge,
    see_edge,
    see_new_worker,
    worker,
)


def bootstrap_edge(
    on: HostSetup, name: str, user: str, key: str, plan: bool, progress: Progress
) -> BootstrapReport:
    """Bring the machine of the edge `name` to its wanted facts and the site's config, or with
    `plan` only read what differs.

    Raises FleetError at the first fact that cannot be made; the next run goes on from there.
    """
    began = time.monotonic()
    wheels = read_wheelhouse(on.settings)
    facts = edge_facts(on, name, wheels)
    if plan:
        with root_shell(on, machine(on, name), user, key) as root:
            changes: Sequence[object] = planned_changes(root, facts)
        return bootstrap_report(name, changes or config_changes(edge_state(on, name)), "", began)
    made = make_edge(on, name, facts, wheels, user, key, progress)
    outcome = see_edge(edge_named(on, name), on.settings.start_timeout_s)
    return bootstrap_report(name, made, outcome, began)


def edge_facts(on: HostSetup, name: str, wheels: Wheelhouse) -> list[HostFact]:
    """The wanted facts of the machine of the edge `name`. Raises FleetConfigError."""
    layout = edge_layout(on.site, on.settings, name, on.latency_edges_s)
    return edge_machine(layout, deploy_public_key(on), wheels.node_exporter)


def edge_named(on: HostSetup, name: str) -> FleetEdge:
    """The edge `name` of the fleet."""
    return next(edge for edge in on.fleet.edges if edge.name == name)


def edge_state(on: HostSetup, name: str) -> EdgeChange:
    """HAProxy's config there against the site's. Raises FleetError where it cannot be read."""
    change = edge_change(on.site, edge_named(on, name))
    if change.problem:
        raise FleetError(change.problem)
    return change


def config_changes(change: EdgeChange) -> list[str]:
    """A sentence where HAProxy's config differs from the site's."""
    return [f"HAProxy's config: {changed_lines(change)} lines"] if change.lines else []


def make_edge(
    on: HostSetup,
    name: str,
    facts: Sequence[HostFact],
    wheels: Wheelhouse,
    user: str,
    key: str,
    progress: Progress,
) -> list[object]:
    """Make what differs on the machine, and have HAProxy take it up; what was changed.

    Raises FleetError where HAProxy does not come up with it; it then goes on with what it had.
    """
    edge, timeout_s = edge_named(on, name), on.settings.start_timeout_s
    before = worker(edge)
    with root_shell(on, machine(on, name), user, key) as root:
        made = converge(root, facts, wheels.folder / NODE_EXPORTER, True, progress)
    if before and any(getattr(one.fact, "name", "") == EDGE for one in made):
        see_new_worker(edge, before, timeout_s)
    see_edge(edge, timeout_s)
    change = edge_state(on, name)
    if change.lines:
        for sentence in roll_edge(change):
            progress("mended", sentence)
        progress("config", "installed, reloaded, and a client was answered")
    return [*made, *config_changes(change)]
