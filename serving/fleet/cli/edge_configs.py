"""`fab edges`, and what `fab plan` shows of it: the edges' configs against the site's."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig

from conf.errors import INCOMPLETE
from conf.site_schema import site_config
from serving.fleet.cli.command import controls, held
from serving.fleet.errors import FleetError
from serving.fleet.inventory import fleet_from
from serving.fleet.rollout.rollout_run import Progress
from serving.fleet.ssh.edge_rollout import EdgeChange, edge_change, roll_edge


class PartlyRolled(FleetError):
    """An edge failed after others had been given their new config."""

    exit_code = INCOMPLETE


def read_edges(config: DictConfig) -> list[EdgeChange]:
    """Every edge of the fleet, compared; touches nothing."""
    site = site_config(config)
    return [edge_change(site, edge) for edge in fleet_from(config).edges]


def roll_edges(config: DictConfig, progress: Progress) -> list[EdgeChange]:
    """Install what differs, one edge after another; stops at the first that fails.

    Returns what was compared before. Raises FleetError, also for an edge that cannot be read;
    PartlyRolled where others have their new config by then.
    """
    on = controls(config)
    rolled: list[str] = []
    with held(on, "edges", progress):
        changes = read_edges(config)
        for change in changes:
            try:
                if _rolled(change, progress):
                    rolled.append(change.edge.name)
            except FleetError as error:
                if not rolled:
                    raise
                have = f"{', '.join(rolled)} {'has' if len(rolled) == 1 else 'have'}"
                raise PartlyRolled(f"{error} {have} the new config.") from error
    return changes


def _rolled(change: EdgeChange, progress: Progress) -> bool:
    """Install one edge's config; False where there is nothing to do here. Raises FleetError."""
    name = change.edge.name
    if change.problem:
        raise FleetError(f"{change.problem} Nothing was changed there and after it.")
    if not change.lines:
        progress(name, "config", "no change")
        return False
    if not change.by_fab:
        progress(name, "config", "differs, and is root's on this machine: scripts/site up")
        return False
    for sentence in roll_edge(change):
        progress(name, "mended", sentence)
    progress(name, "config", "installed, reloaded, and a client was answered")
    return True


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
