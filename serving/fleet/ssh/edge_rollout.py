"""The config of an edge against that of the site: the difference, and its rollout.

An edge on the controller's own machine is compared only: its config is root's there.
"""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass

from conf.site_schema import Site
from serving.fleet.errors import FleetError
from serving.fleet.haproxy.edge import Edge
from serving.fleet.haproxy.edge_config import edge_config_diff, haproxy_cfg, validator_at
from serving.fleet.haproxy.edge_link import EdgeError
from serving.fleet.inventory import FleetEdge
from serving.fleet.ssh.remote_edge import RemoteEdge, edge_of

_ANSWER_S = 5


@dataclass(frozen=True)
class EdgeChange:
    """One edge whose config was compared: `lines` would be removed (-) and added (+).

    `wanted` is the site's text; `problem` is a sentence where the edge's own could not be read.
    """

    edge: FleetEdge
    wanted: str
    lines: tuple[str, ...] = ()
    problem: str = ""

    @property
    def by_fab(self) -> bool:
        """True where fab installs it; else root does, as `scripts/site up` in the box."""
        return self.edge.ssh is not None


def edge_change(site: Site, edge: FleetEdge) -> EdgeChange:
    """Compare one edge. Raises ValueError for a site whose edge cannot be configured."""
    own = site.edges[edge.name].ssh
    validator = validator_at(own.etc if own else site.paths.etc)
    wanted = haproxy_cfg(site, edge.name, validator)
    try:
        current = _read_config(site, edge)
    except FleetError as error:
        return EdgeChange(edge, wanted, problem=str(error))
    lines = edge_config_diff(site, edge.name, current, validator)
    return EdgeChange(edge, wanted, tuple(lines))


def roll_edge(change: EdgeChange) -> list[str]:
    """Install the site's config at an edge of its own machine, and prove it; what was mended.

    HAProxy checks it first; after the reload the routing and the states must be there, and a
    client's request must be answered. Else the config that was there is put back. Raises EdgeError.
    """
    edge = edge_of(change.edge)
    try:
        link = edge.link
        if not isinstance(link, RemoteEdge):
            raise EdgeError(f"the edge {edge.name}: its config is root's on this machine.")
        before = link.read_config()
        link.install_config(change.wanted)
        try:
            mended = edge.reassert()
            _refuse_silent(edge, change.edge.url)
        except FleetError:
            link.install_config(before)
            raise
        return mended
    finally:
        edge.close()


def _read_config(site: Site, edge: FleetEdge) -> str:
    path = site.paths.etc / f"haproxy-{edge.name}.cfg"
    opened = edge_of(edge)
    try:
        if isinstance(opened.link, RemoteEdge):
            return opened.link.read_config()
        return path.read_text()
    except OSError as error:
        raise EdgeError(f"the edge {edge.name}: {path}: {error.strerror}.") from error
    finally:
        opened.close()


def _refuse_silent(edge: Edge, url: str) -> None:
    try:
        with urllib.request.urlopen(f"{url}/v2/health/live", timeout=_ANSWER_S):
            pass
    except OSError as error:
        raise EdgeError(
            f"the edge {edge.name} did not answer a client at {url} with its new config ({error}); "
            "it has the one before."
        ) from error
