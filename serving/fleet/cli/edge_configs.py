"""`fab edges`, and what `fab plan` shows of it: the edges' configs against the site's."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig

from conf.site_schema import site_config
from serving.fleet.cli.command import controls, held
from serving.fleet.errors import FleetError
from serving.fleet.inventory import fleet_from
from serving.fleet.rollout.rollout_run import Progress
from serving.fleet.ssh.edge_rollout import EdgeChange, edge_change, roll_edge


def read_edges(config: DictConfig) -> list[EdgeChange]:
    """Every edge of the fleet, compared; touches nothing."""
    site = site_config(config)
    return [edge_change(site, edge) for edge in fleet_from(config).edges]


def roll_edges(config: DictConfig, progress: Progress) -> list[EdgeChange]:
    """Install what differs, one edge after another; stops at the first that fails.

    Returns what was compared before. Raises FleetError, also for an edge that cannot be read.
    """
    on = controls(config)
    with held(on, "edges", progress):
        changes = read_edges(config)
        for change in changes:
            name = change.edge.name
            if change.problem:
                raise FleetError(f"{change.problem} Nothing was changed there and after it.")
            if not change.lines:
                progress(name, "config", "no change")
            elif not change.by_fab:
                progress(name, "config", "differs, and is root's on this machine: scripts/site up")
            else:
                for sentence in roll_edge(change):
                    progress(name, "mended", sentence)
                progress(name, "config", "installed, reloaded, and a client was answered")
    return changes


def edge_lines(changes: Sequence[EdgeChange], rolled: bool = False) -> list[str]:
    """The comparison as lines for people."""
    lines = []
    for change in changes:
        name, count = change.edge.name, changed_lines(change)
        if change.problem:
            lines.append(change.problem)
        elif not count:
            lines.append(f"{name}: as conf/site has it")
        elif not rolled:
            lines += [f"{name}: {count} lines differ from conf/site", *change.lines]
    return lines


def plan_lines(changes: Sequence[EdgeChange]) -> list[str]:
    """A sentence for each edge whose config differs, for `fab plan`."""
    return [
        f"edge {one.edge.name}: {changed_lines(one)} lines of its config differ from conf/site; "
        "fab edges shows them"
        for one in changes
        if one.lines
    ]


def changed_lines(change: EdgeChange) -> int:
    """The number of lines that are removed or added."""
    return sum(line[:1] in ("-", "+") for line in change.lines)
