"""The schema of `conf/site/*.yaml`: one whole site as a frozen value, checked when it is made.

`site_config(compose("site")) -> Site`. The values, and how they hang together, are in the YAML.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig

from conf.schema import from_config
from conf.site_checks import (
    HOST_LABEL,
    check_absolute,
    check_address,
    check_at_least_one,
    check_distinct,
    check_names,
    check_ports,
    check_serving_host,
    host_port,
    require_us_region,
)
from conf.site_daemons import (
    EdgeSettings,
    SitePorts,
    SitePrometheus,
    SiteSigning,
    SiteSlurm,
    SiteTriton,
    training_nodes,
)
from conf.site_placement import ModelPlacement, check_placement


@dataclass(frozen=True)
class SiteUsers:
    """One OS user per duty, all distinct."""

    train: str
    """Submits and trains; owns datasets and runs."""
    release: str
    """Runs the gates; owns the store of versions."""
    sign: str
    """Owns the signing key; signs manifests and does nothing else."""
    candidate: str
    """Runs what a candidate brings, confined; owns nothing."""
    deploy: str
    """Runs fab; owns the SSH client key, known_hosts and the journal."""
    host: str
    """Account on a serving host that receives packages into its staging folder."""
    verify: str
    """Account on a serving host that verifies packages; owns its model repository."""
    triton: str
    """Runs tritonserver; reads the model repository."""
    observe: str
    """Prometheus, Alertmanager and the exporters."""
    mlflow: str
    """The MLflow server."""
    slurm: str
    """slurmctld and slurmdbd."""
    munge: str
    """munged."""
    mysql: str
    """mariadbd."""
    haproxy: str
    """HAProxy, the edge of a region."""

    def __post_init__(self) -> None:
        check_names(vars(self))

    def of(self, role: str) -> str:
        """The user of the duty `role`, such as `train`."""
        return str(vars(self)[role])


@dataclass(frozen=True)
class SiteGroups:
    """OS groups that two duties share."""

    serving: str
    """Members may command a serving host's Triton and its supervisor."""
    edge: str
    """Members may take hosts out of an edge and put them back."""

    def __post_init__(self) -> None:
        check_names(vars(self))

    def of(self, key: str) -> str:
        """The group at the config key `key`, such as `edge`."""
        return str(vars(self)[key])


@dataclass(frozen=True)
class SitePaths:
    """Folders and files of the site, all absolute."""

    data: Path
    """Published datasets."""
    runs: Path
    """Runs and source snapshots."""
    store: Path
    """Signed versions, `<model>/<N>/`."""
    gates: Path
    """Folders of the servers that run a candidate while it is gated."""
    signed: Path
    """Record of what was signed; the signing user's."""
    journal: Path
    """Rollout journals, the fleet lock, the ledger."""
    release_key: Path
    """Private key that signs manifests."""
    deploy_key: Path
    """Private SSH client key of the deploy identity."""
    known_hosts: Path
    """Pinned keys of the serving hosts."""
    passwords: Path
    """Passwords of HTTP services, `<service>/<OS user>`; see conf.credentials."""
    allowed_signers: Path
    """Signers whose manifests count."""
    hosts: Path
    """One folder per serving host."""
    mlflow: Path
    """Tracking database and artifacts."""
    etc: Path
    """Generated configs of the daemons."""
    log: Path
    """One log per daemon."""
    run: Path
    """Pid files and sockets."""
    edge_log: Path
    """Unix socket of the reader of every edge's request log."""
    slurm_conf: Path
    """slurm.conf of the cluster."""

    def __post_init__(self) -> None:
        for name, path in vars(self).items():
            check_absolute(name, path)


@dataclass(frozen=True)
class SiteHost:
    """One serving host."""

    address: str
    """IPv4 or IPv6 address, or host name, of its sshd and its Triton."""
    region: str
    """Region it serves; one of the US (us-*)."""

    def __post_init__(self) -> None:
        check_address("address", self.address)
        require_us_region("region", self.region)


EDGE_PORTS = ("http_port", "grpc_port", "stats_port")
"""Keys of an edge that are ports."""


@dataclass(frozen=True)
class SiteEdgeSsh:
    """The way to an edge on a machine of its own."""

    address: str
    """IPv4 or IPv6 address, or host name, of its sshd."""
    port: int
    """Port of its sshd."""
    user: str
    """Account that answers the runtime commands of a rollout, and nothing else."""
    etc: Path
    """Folder of root's files there: the edge's programs, and the validator's Lua."""
    proxy_jump: str = ""
    """`user@address:port` of a host to go through, "" for none."""

    def __post_init__(self) -> None:
        check_address("address", self.address)
        check_ports({"port": self.port})
        check_names({"user": self.user})
        check_absolute("etc", self.etc)


@dataclass(frozen=True)
class SiteEdge:
    """One HAProxy."""

    address: str
    """IPv4 or IPv6 address, or host name, that it listens on."""
    http_port: int
    """Port of the clients' requests."""
    grpc_port: int
    """Port of the clients' requests by gRPC, HTTP/2 without TLS."""
    stats_port: int
    """Port of its Prometheus metrics."""
    socket: Path
    """Runtime socket by which a rollout routes versions and drains hosts."""
    state: Path
    """Folder with the routing of versions and the states of hosts, which HAProxy reads at start."""
    region: str = ""
    """Region whose hosts it stands in front of; "" for the region of its own name."""
    ssh: SiteEdgeSsh | None = None
    """The way to its machine; none for an edge on the controller's own."""

    def __post_init__(self) -> None:
        check_address("address", self.address)
        check_absolute("socket", self.socket)
        check_absolute("state", self.state)
        check_ports({name: getattr(self, name) for name in EDGE_PORTS})

    @property
    def url(self) -> str:
        """Base URL of the clients' requests."""
        return f"http://{host_port(self.address, self.http_port)}"

    @property
    def metrics_url(self) -> str:
        """URL that Prometheus scrapes."""
        return f"http://{host_port(self.address, self.stats_port)}/metrics"


def edge_region(name: str, edge: SiteEdge) -> str:
    """The region of the edge called `name`."""
    return edge.region or name


@dataclass(frozen=True)
class Site:
    """Every address, port, user and path of one site."""

    name: str
    """Cluster name in accounting; label of metrics and journals."""
    root: Path
    """Folder of all state of the site."""
    users: SiteUsers
    """OS users by duty."""
    groups: SiteGroups
    """OS groups."""
    paths: SitePaths
    """Folders and files."""
    serving_env: Path
    """Python environment that Triton runs from on a serving host."""
    mlflow_uri: str
    """Tracking server and registry; "" for a site without MLflow."""
    prometheus_url: str
    """Prometheus that rollout gates query."""
    hosts: dict[str, SiteHost]
    """Serving hosts by name."""
    edges: dict[str, SiteEdge]
    """HAProxies by name; a region may have several, each in front of all its hosts."""
    edge: EdgeSettings
    """Settings that all edges share."""
    ports: SitePorts
    """Ports of the daemons."""
    signing: SiteSigning
    """Signatures that a serving host wants."""
    slurm: SiteSlurm
    """Slurm cluster."""
    triton: SiteTriton
    """Settings of every Triton."""
    prometheus: SitePrometheus
    """Settings of Prometheus."""
    up_timeout_s: int
    """Seconds that `scripts/site up` waits for every daemon to be healthy."""
    placement: dict[str, ModelPlacement] = field(default_factory=dict)
    """Hosts of a model that is not on all of them."""

    def __post_init__(self) -> None:
        check_absolute("root", self.root)
        check_absolute("serving_env", self.serving_env)
        check_at_least_one({"up_timeout_s": self.up_timeout_s})
        regions = {name: edge_region(name, edge) for name, edge in self.edges.items()}
        for name, region in regions.items():
            require_us_region(f"edges.{name}", region)
            if not HOST_LABEL.fullmatch(name):
                raise ValueError(f"edges.{name}: a name has letters, digits and - only, 63 at most")
        for name, host in self.hosts.items():
            if host.region not in regions.values():
                raise ValueError(
                    f"hosts.{name}.region={host.region}: must be a region with an edge "
                    f"({', '.join(dict.fromkeys(regions.values()))})"
                )
            check_serving_host(name, host.address, training_nodes(self.slurm.all_nodes))
        check_distinct({f"hosts.{name}.address": one.address for name, one in self.hosts.items()})
        check_placement(self.placement, {name: host.region for name, host in self.hosts.items()})
        ports = self._all_ports()
        check_ports(ports)
        places = {}
        for name, edge in self.edges.items():
            for key in EDGE_PORTS:
                port = getattr(edge, key)
                if port in ports.values():
                    raise ValueError(f"edges.{name}.{key}={port}: is also one of site.ports")
                places[f"edges.{name}.{key}"] = f"{edge.address} port {port}"
        check_distinct(places)

    def _all_ports(self) -> dict[str, int]:
        """Config key -> port of every daemon but the edges, Slurm's nodes one by one."""
        named = {f"ports.{key}": port for key, port in vars(self.ports).items()}
        base = self.ports.slurmd_base
        nodes = {f"ports.slurmd_base + {k}": base + k for k in range(1, self.slurm.all_nodes + 1)}
        return named | nodes


def site_config(config: DictConfig) -> Site:
    """The site of a composed config that has the key `site`.

    Raises `ConfigError` with the key (and the nearest names) for what is unknown, missing, of
    another type or not possible.
    """
    return from_config(Site, config.site, "site")
