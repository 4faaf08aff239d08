"""The fleet as a value: regions with an edge, hosts in them, and how a host is reached."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.names import check_name, nearest, shown
from conf.schema import SchemaError, build
from conf.site_checks import (
    check_address,
    check_names,
    check_ports,
    check_serving_host,
    host_port,
)
from conf.site_daemons import training_nodes
from conf.site_placement import ModelPlacement, Placement, check_placement, hosts_of
from serving.fleet.errors import FleetConfigError

_OWN_SSH = ("port", "user", "transfer_user", "proxy_jump")
_JUMP = re.compile(
    r"[a-z_][a-z0-9_-]{0,31}@(?P<address>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):[1-9][0-9]{0,4}"
)


@dataclass(frozen=True)
class Ssh:
    """SSH access of the deploy identity to a host. Times in seconds.

    `user` is the account that answers the verbs of a host, `transfer_user` the one that receives
    files. `proxy_jump` is `user@address:port` of the host to go through, "" for none.
    """

    user: str
    transfer_user: str
    port: int
    key: Path
    known_hosts: Path
    connect_timeout_s: float
    command_timeout_s: float
    proxy_jump: str = ""


@dataclass(frozen=True)
class Host:
    """One serving host. `ssh` are its own values of `Ssh`, where they differ from the fleet's."""

    name: str
    address: str
    region: str
    http_port: int
    ssh: tuple[tuple[str, str | int], ...] = ()


@dataclass(frozen=True)
class FleetEdge:
    """One HAProxy: its runtime socket and state folder, and the base URL of its clients.

    Both are on the machine at `address` that `ssh` leads to; without it, on the controller's own.
    """

    name: str
    region: str
    url: str
    socket: Path
    state: Path
    address: str = ""
    ssh: Ssh | None = None


@dataclass(frozen=True)
class Region:
    """One region: its edges, each in front of all its hosts."""

    name: str
    edges: tuple[FleetEdge, ...]
    hosts: tuple[Host, ...]


@dataclass(frozen=True)
class Fleet:
    """All regions, in the order of the config; host names are unique in it."""

    name: str
    regions: tuple[Region, ...]
    ssh: Ssh
    load_timeout_s: float
    infer_timeout_s: float
    placement: Placement = field(default_factory=dict, hash=False)

    @property
    def edges(self) -> tuple[FleetEdge, ...]:
        """Every edge, region by region."""
        return tuple(edge for region in self.regions for edge in region.edges)

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

    def for_model(self, model: str) -> Fleet:
        """The fleet with those hosts alone that have `model`: all of them without a placement.

        Raises FleetConfigError for a region without any.
        """
        regions = []
        for region in self.regions:
            names = hosts_of(self.placement, model, [host.name for host in region.hosts])
            if not names:
                raise FleetConfigError(
                    f"{region.name} has no host for {model}: every one there is another model's "
                    f"alone. Name hosts of {region.name} in site.placement.{model}: fab place "
                    "proposes some."
                )
            regions.append(
                replace(region, hosts=tuple(one for one in region.hosts if one.name in names))
            )
        return replace(self, regions=tuple(regions))

    def ssh_of(self, host: Host) -> Ssh:
        """SSH access to `host`."""
        own: dict[str, Any] = dict(host.ssh)
        return replace(self.ssh, **own)

    def region_of(self, host: Host) -> Region:
        """The region that `host` stands in."""
        return next(region for region in self.regions if region.name == host.region)


def fleet_from(config: DictConfig) -> Fleet:
    """The fleet of a composed `rollout` config (key `fleet`).

    Raises FleetConfigError for a missing or mistyped key, a host in a region without an edge, two
    hosts with one address, a host that is a training node of the site, and any serving host or edge
    outside the regions of the US.
    """
    try:
        content: Any = OmegaConf.to_container(config.fleet, resolve=True, throw_on_missing=True)
        slurm = config.site.slurm
        return _build(content, training_nodes(slurm.nodes + slurm.cloud_nodes))
    except (OmegaConfBaseException, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise FleetConfigError(f"conf/fleet or conf/site is incomplete: {reason}.") from error


def _build(content: Mapping[str, Any], training: Container[str]) -> Fleet:
    hosts = [_host(name, entry, content, training) for name, entry in content["hosts"].items()]
    ssh = _ssh(content["ssh"])
    edges = [_edge(name, entry, ssh) for name, entry in content["edges"].items()]
    served = list(dict.fromkeys(edge.region for edge in edges))
    seen: dict[str, str] = {}
    for host in hosts:
        _only_us(host.region, f"host {host.name}")
        if host.region not in served:
            raise FleetConfigError(
                f"host {host.name} is in region {host.region!r}, which has no edge; "
                f"site.edges has {', '.join(served)}."
            )
        if host.address in seen:
            raise FleetConfigError(f"hosts {seen[host.address]} and {host.name} have one address.")
        seen[host.address] = host.name
    for edge in edges:
        _only_us(edge.region, f"edge {edge.name}")
        check_name("the name of an edge", edge.name)
    regions = tuple(
        Region(
            name=name,
            edges=tuple(edge for edge in edges if edge.region == name),
            hosts=tuple(host for host in hosts if host.region == name),
        )
        for name in served
    )
    return Fleet(
        placement=_placement(content.get("placement") or {}, hosts),
        name=str(content["name"]),
        regions=tuple(region for region in regions if region.hosts),
        ssh=ssh,
        load_timeout_s=float(content["triton"]["load_timeout_s"]),
        infer_timeout_s=float(content["triton"]["infer_timeout_s"]),
    )


def _placement(content: object, hosts: Sequence[Host]) -> Placement:
    try:
        placement: Placement = build(dict[str, ModelPlacement], content, "placement")
        check_placement(placement, {host.name: host.region for host in hosts})
    except (SchemaError, ValueError) as error:
        raise FleetConfigError(f"{error}.") from error
    return placement


def _ssh(content: Mapping[str, Any]) -> Ssh:
    return Ssh(
        user=str(content["user"]),
        transfer_user=str(content["transfer_user"]),
        port=int(content["port"]),
        key=Path(content["key"]),
        known_hosts=Path(content["known_hosts"]),
        connect_timeout_s=float(content["connect_timeout_s"]),
        command_timeout_s=float(content["command_timeout_s"]),
    )


def _edge(name: str, entry: Mapping[str, Any], ssh: Ssh) -> FleetEdge:
    own = entry.get("ssh") or {}
    jump = str(own.get("proxy_jump") or "")
    if jump and not _JUMP.fullmatch(jump):
        raise FleetConfigError(f"edge {name}: proxy_jump={jump}: is not user@address:port.")
    return FleetEdge(
        name=str(name),
        region=str(entry.get("region") or name),
        url=f"http://{host_port(str(entry['address']), entry['http_port'])}",
        socket=Path(entry["socket"]),
        state=Path(entry["state"]),
        address=str(own.get("address") or ""),
        ssh=replace(ssh, user=str(own["user"]), port=int(own["port"]), proxy_jump=jump)
        if own
        else None,
    )


def _host(
    name: str, entry: Mapping[str, Any], content: Mapping[str, Any], training: Container[str]
) -> Host:
    try:
        host = check_name("the name of a host", str(name))
        check_address("address", str(entry["address"]))
        check_serving_host(host, str(entry["address"]), training)
        return Host(
            name=host,
            address=str(entry["address"]),
            region=str(entry["region"]),
            http_port=int(content["triton"]["http_port"]),
            ssh=_own_ssh(entry),
        )
    except ValueError as error:
        raise FleetConfigError(f"host {shown(str(name))}: {error}.") from error


def _own_ssh(entry: Mapping[str, Any]) -> tuple[tuple[str, str | int], ...]:
    """The values of `Ssh` that a host has of its own. Raises ValueError."""
    unknown = set(entry) - {"address", "region", *_OWN_SSH}
    if unknown:
        raise ValueError(f"{min(unknown)!r} is no key of a host. {nearest(min(unknown), _OWN_SSH)}")
    own: list[tuple[str, str | int]] = []
    for key in _OWN_SSH:
        if key not in entry:
            continue
        value = entry[key]
        if key == "port":
            check_ports({key: int(value)})
            own.append((key, int(value)))
        elif key == "proxy_jump":
            found = _JUMP.fullmatch(str(value))
            if not found:
                raise ValueError(f"{key}={value}: is not user@address:port")
            check_address(key, found["address"].strip("[]"))
            own.append((key, str(value)))
        else:
            check_names({key: str(value)})
            own.append((key, str(value)))
    return tuple(own)


def _only_us(region: str, what: str) -> None:
    if not region.startswith("us-"):
        raise FleetConfigError(
            f"{what}: region {region!r} is not in the US. Models are served from hosts in the US "
            "only (us-*); move it or take it out of the site's config."
        )
    check_name(f"{what}: region", region)
