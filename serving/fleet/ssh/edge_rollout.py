"""The config of an edge against that of the site: the difference, and its rollout.

An edge on the controller's own machine is compared only: its config is root's there.
"""

from __future__ import annotations

import time
import urllib.error
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

    `wanted` is the site's text, `current` the edge's own; `problem` is a sentence where that could
    not be read.
    """

    edge: FleetEdge
    wanted: str
    lines: tuple[str, ...] = ()
    problem: str = ""
    current: str = ""

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
    return EdgeChange(edge, wanted, tuple(lines), current=current)


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


def worker(edge: FleetEdge) -> str:
    """The process that answers as HAProxy there; "" where none does."""
    opened = edge_of(edge)
    try:
        lines = opened.query("show info").splitlines()
    except EdgeError:
        return ""
    finally:
        opened.close()
    return next((line for line in lines if line.startswith("Pid:")), "")


def see_new_worker(edge: FleetEdge, before: str, timeout_s: float) -> None:
    """Wait until another worker than `before` answers. Raises EdgeError."""
    deadline = time.monotonic() + timeout_s
    while worker(edge) in ("", before):
        if time.monotonic() > deadline:
            raise EdgeError(
                f"the edge {edge.name} was reloaded and goes on with its worker of before. See "
                "there: journalctl -u lockgate-edge"
            )
        time.sleep(0.1)


def see_edge(edge: FleetEdge, timeout_s: float) -> str:
    """Wait until the edge answers fab and its clients; returns a sentence. Raises EdgeError.

    While no host is up, clients are answered 503: that is an answer of the edge.
    """
    opened, deadline = edge_of(edge), time.monotonic() + timeout_s
    try:
        while True:
            try:
                states = opened.states()
                opened.reassert()
                status = _status(edge)
                break
            except EdgeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
    finally:
        opened.close()
    up = sum(state.up for state in states.values())
    return (
        f"{edge.name} is an edge: its account answers fab, clients at {edge.url} are answered "
        f"{status}, {up} of {len(states)} hosts are up"
    )


def _status(edge: FleetEdge) -> int:
    try:
        with urllib.request.urlopen(f"{edge.url}/v2/health/live", timeout=_ANSWER_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as answered:
        return answered.code
    except OSError as error:
        raise EdgeError(
            f"the edge {edge.name} does not answer a client at {edge.url} ({error})."
        ) from error


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
