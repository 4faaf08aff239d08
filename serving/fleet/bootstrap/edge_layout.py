"""An edge's own machine as its bootstrap wants it: accounts, folders, sockets, the config."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from conf.site_schema import EDGE_PORTS, Site, SiteEdge, SiteEdgeSsh, edge_region
from serving.edge_host.machine import EdgeHome
from serving.fleet.bootstrap.layout import BootstrapSettings
from serving.fleet.errors import FleetConfigError
from serving.fleet.haproxy.edge_config import haproxy_cfg, validator_at

HAPROXY = "/usr/sbin/haproxy"
_RUN = PurePosixPath("/run")
_OF_ONE_SERVICE = ("/tmp", "/var/tmp")


@dataclass(frozen=True)
class EdgeLayout:
    """The edge `name`, reached by `ssh`. `config_text` is its HAProxy config by the site.

    HAProxy sends its request log to `log_socket`, where an exporter reads it, to be scraped at
    `log_port`; `latency_edges_s` are the edges of its histogram.
    """

    name: str
    edge: SiteEdge
    ssh: SiteEdgeSsh
    settings: BootstrapSettings
    haproxy_user: str
    edge_group: str
    node_exporter_port: int
    region: str
    log_socket: Path
    log_port: int
    latency_edges_s: tuple[float, ...]
    config_text: str

    def path(self, name: str) -> str:
        """A path below the folder of ours."""
        return str(PurePosixPath(self.settings.root, name))

    def etc(self, name: str) -> str:
        """A path below root's folder of the edge's programs."""
        return str(PurePosixPath(self.ssh.etc, name))

    @property
    def config(self) -> str:
        """HAProxy's config, in a folder of the account that fab reaches."""
        return self.path("edge/haproxy.cfg")

    @property
    def run(self) -> PurePosixPath:
        """The folder of HAProxy's sockets, which its unit makes at each start."""
        return PurePosixPath(self.edge.socket).parent

    @property
    def master(self) -> str:
        """The socket of HAProxy's master, by which it is reloaded."""
        return str(self.run / "master.sock")

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports that HAProxy listens on."""
        return tuple(getattr(self.edge, key) for key in EDGE_PORTS)

    @property
    def home(self) -> EdgeHome:
        """The settings of the edge's programs."""
        return EdgeHome(
            haproxy=HAPROXY, config=Path(self.config), state=self.edge.state,
            socket=self.edge.socket, master=Path(self.master),
        )  # fmt: skip


def edge_layout(
    site: Site, settings: BootstrapSettings, name: str, latency_edges_s: tuple[float, ...]
) -> EdgeLayout:
    """The layout of the edge `name`, which must be one of `site.edges`.

    Raises FleetConfigError for one without a machine of its own, or whose places cannot be made.
    """
    edge = site.edges[name]
    if edge.ssh is None:
        raise FleetConfigError(
            f"the edge {name} has no machine of its own (site.edges.{name}.ssh): it runs on the "
            "control host, where scripts/site up makes it."
        )
    shared = [
        other for other, one in site.edges.items()
        if other != name and one.ssh and one.ssh.address == edge.ssh.address
    ]  # fmt: skip
    if shared:
        raise FleetConfigError(
            f"the edges {name} and {shared[0]} have one machine, {edge.ssh.address}: a bootstrap "
            "makes one edge on a machine. Give each an address of its own."
        )
    if PurePosixPath(edge.socket).parent.parent != _RUN:
        raise FleetConfigError(
            f"site.edges.{name}.socket={edge.socket}: on a machine of its own the socket lies in a "
            f"folder of /run that its unit makes, as in /run/lockgate-edge/{name}.sock"
        )
    if any(site.paths.edge_log.is_relative_to(folder) for folder in _OF_ONE_SERVICE):
        raise FleetConfigError(
            f"site.paths.edge_log={site.paths.edge_log}: each service of an edge's machine has a "
            "/tmp of its own. Name a folder for it alone, as in /srv/lockgate/edge-log/edges.sock"
        )
    return EdgeLayout(
        name=name,
        edge=edge,
        ssh=edge.ssh,
        settings=settings,
        haproxy_user=site.users.haproxy,
        edge_group=site.groups.edge,
        node_exporter_port=site.ports.node_exporter,
        region=edge_region(name, edge),
        log_socket=site.paths.edge_log,
        log_port=site.ports.release_exporter,
        latency_edges_s=latency_edges_s,
        config_text=haproxy_cfg(site, name, validator_at(edge.ssh.etc)),
    )
