"""The fleet as a value: regions with an edge, hosts in them, and how a host is reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.names import nearest
from serving.fleet.errors import FleetConfigError


@dataclass(frozen=True)
class Ssh:
    """SSH access of the deploy identity to a host. Times in seconds."""

    user: str | None
    port: int
    key: Path
    known_hosts: Path
    connect_timeout_s: float
    command_timeout_s: float


@dataclass(frozen=True)
class Host:
    """One serving host. `root` is the folder of everything below on the host itself."""

    name: str
    address: str
    region: str
    root: Path
    python: str
    restart: str
    http_port: int
    grpc_port: int

    @property
    def staging(self) -> Path:
        """The folder where a package arrives; nothing in it is trusted."""
        return self.root / "staging"

    @property
    def packages(self) -> Path:
        """Verified packages, `<model>/<N>/`."""
        return self.root / "packages"

    @property
    def repository(self) -> Path:
        """Triton's model repository, `<model>/config.pbtxt` and `<model>/<N>/`."""
        return self.root / "model-repository"

    @property
    def verifier(self) -> Path:
        """The root-owned verifier; installed when the host is made, never by a deployment."""
        return self.root / "etc" / "verify.py"

    @property
    def allowed_signers(self) -> Path:
        """Public keys whose signatures count on this host; root-owned like the verifier."""
        return self.root / "etc" / "allowed_signers"


@dataclass(frozen=True)
class Region:
    """One region: its edge's runtime socket and client port, and the hosts behind it."""

    name: str
    socket: Path
    url: str
    hosts: tuple[Host, ...]


@dataclass(frozen=True)
class Fleet:
    """All regions, in the order of the config; host names are unique in it."""

    name: str
    regions: tuple[Region, ...]
    ssh: Ssh
    load_timeout_s: float
    infer_timeout_s: float

    @property
    def hosts(self) -> tuple[Host, ...]:
        """Every host, region by region."""
        return tuple(host for region in self.regions for host in region.hosts)

    def host(self, name: str) -> Host:
        """The host called `name`. Raises FleetConfigError naming the nearest ones."""
        for host in self.hosts:
            if host.name == name:
                return host
        names = [host.name for host in self.hosts]
        raise FleetConfigError(f"the fleet has no host {name!r}. {nearest(name, names)}.")

    def region_of(self, host: Host) -> Region:
        """The region that `host` stands in."""
        return next(region for region in self.regions if region.name == host.region)


def fleet_from(config: DictConfig) -> Fleet:
    """The fleet of a composed `rollout` config (key `fleet`).

    Raises FleetConfigError for a missing or mistyped key, a host in a region without an edge, two
    hosts with one address, and any serving host or edge outside the regions of the US.
    """
    try:
        content: Any = OmegaConf.to_container(config.fleet, resolve=True, throw_on_missing=True)
        return _build(content)
    except (OmegaConfBaseException, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise FleetConfigError(f"conf/fleet or conf/site is incomplete: {reason}.") from error


def _build(content: Mapping[str, Any]) -> Fleet:
    hosts = [_host(name, entry, content) for name, entry in content["hosts"].items()]
    edges = content["edges"]
    seen: dict[str, str] = {}
    for host in hosts:
        _only_us(host.region, f"host {host.name}")
        if host.region not in edges:
            raise FleetConfigError(
                f"host {host.name} is in region {host.region!r}, which has no edge; "
                f"site.edges has {', '.join(edges)}."
            )
        if host.address in seen:
            raise FleetConfigError(f"hosts {seen[host.address]} and {host.name} have one address.")
        seen[host.address] = host.name
    for region in edges:
        _only_us(region, f"edge {region}")
    regions = tuple(
        Region(
            name=name,
            socket=Path(edge["socket"]),
            url=f"http://{edge['address']}:{edge['http_port']}",
            hosts=tuple(host for host in hosts if host.region == name),
        )
        for name, edge in edges.items()
    )
    ssh = content["ssh"]
    return Fleet(
        name=str(content["name"]),
        regions=tuple(region for region in regions if region.hosts),
        ssh=Ssh(
            user=ssh["user"],
            port=int(ssh["port"]),
            key=Path(ssh["key"]),
            known_hosts=Path(ssh["known_hosts"]),
            connect_timeout_s=float(ssh["connect_timeout_s"]),
            command_timeout_s=float(ssh["command_timeout_s"]),
        ),
        load_timeout_s=float(content["triton"]["load_timeout_s"]),
        infer_timeout_s=float(content["triton"]["infer_timeout_s"]),
    )


def _host(name: str, entry: Mapping[str, Any], content: Mapping[str, Any]) -> Host:
    return Host(
        name=str(name),
        address=str(entry["address"]),
        region=str(entry["region"]),
        root=Path(str(content["root"]).replace("{host}", str(name))),
        python=str(content["python"]),
        restart=str(content["restart"]).replace("{host}", str(name)),
        http_port=int(content["triton"]["http_port"]),
        grpc_port=int(content["triton"]["grpc_port"]),
    )


def _only_us(region: str, what: str) -> None:
    if not region.startswith("us-"):
        raise FleetConfigError(
            f"{what}: region {region!r} is not in the US. Models are served from hosts in the US "
            "only (us-*); move it or take it out of the site's config."
        )
