"""`fab wheelhouse`, `fab pin` and `fab bootstrap`: a bare host becomes a serving host, or an edge.

fab wheelhouse                                     once, with the internet or a mirror
fab pin h1 --fingerprint SHA256:...                from the host's own console
fab bootstrap h1 --key ~/.ssh/root --plan          "43 changes"; changes nothing
fab bootstrap h1 --key ~/.ssh/root                 a line a change, at the end "h1 serves: ..."
fab bootstrap h1 --key ~/.ssh/root                 "h1: no change. h1 serves: ..."
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import DictConfig

from conf import compose
from conf.names import nearest, shown
from conf.schema import from_config
from conf.site_schema import Site, site_config
from serving.fleet.bootstrap import host_pin
from serving.fleet.bootstrap.converge import converge, planned_changes, see_serving
from serving.fleet.bootstrap.edge_layout import edge_layout
from serving.fleet.bootstrap.edge_units import edge_unit_texts
from serving.fleet.bootstrap.facts import HostFact
from serving.fleet.bootstrap.fetch_keys import ensure_fetch_key, peers_of
from serving.fleet.bootstrap.layout import BootstrapSettings, host_layout
from serving.fleet.bootstrap.root_shell import RootShell
from serving.fleet.bootstrap.serving_host import UNITS, HostTrust, serving_host
from serving.fleet.bootstrap.units import unit_texts
from serving.fleet.bootstrap.wheelhouse import Wheelhouse, make_wheelhouse, read_wheelhouse
from serving.fleet.errors import FleetConfigError, denied
from serving.fleet.inventory import Fleet, Host, Ssh, fleet_from
from serving.fleet.ssh.connection import open_shell
from serving.fleet.ssh.pinned_keys import pinned_keys

Progress = Callable[[str, str], None]


@dataclass(frozen=True)
class HostSetup:
    """All that a bootstrap works with."""

    site: Site
    fleet: Fleet
    settings: BootstrapSettings
    latency_edges_s: tuple[float, ...]
    """Of the histogram that an edge's machine shows to Prometheus; those of conf/observe.yaml."""


@dataclass(frozen=True)
class BootstrapReport:
    """The changes of a bootstrap, made or planned, and the sentence that ends it."""

    host: str
    changes: tuple[str, ...]
    outcome: str
    seconds: float


def setup(config: DictConfig) -> HostSetup:
    """From a composed `bootstrap` config. Raises ConfigError, FleetConfigError."""
    settings = from_config(BootstrapSettings, config.bootstrap, "bootstrap")
    edges_s = tuple(float(one) for one in compose("observe").observe.exporter.latency_edges_s)
    return HostSetup(site_config(config), fleet_from(config), settings, edges_s)


def wheelhouse(on: HostSetup) -> Wheelhouse:
    """Make the wheelhouse. Raises FleetError."""
    return make_wheelhouse(on.settings)


def pin(on: HostSetup, name: str, fingerprint: str) -> str:
    """Pin the key of the host, or of the edge's machine, `name`; returns a sentence. Raises
    FleetError."""
    host = machine(on, name)
    ssh = on.fleet.ssh_of(host)
    return host_pin.pin(host, ssh.port, ssh.known_hosts, fingerprint, ssh.connect_timeout_s)


def machine(on: HostSetup, name: str) -> Host:
    """The serving host called `name`, or the machine of its own of the edge of that name.

    Raises FleetConfigError for neither, naming the nearest.
    """
    hosts = {host.name: host for host in on.fleet.hosts}
    own = {
        edge.name: Host(
            edge.name, edge.address, edge.region, 0,
            (("user", ssh.user), ("port", ssh.port), ("proxy_jump", ssh.proxy_jump)),
        )
        for edge in on.fleet.edges if (ssh := edge.ssh)
    }  # fmt: skip
    machines = {**own, **hosts}
    if name not in machines:
        raise FleetConfigError(
            f"the site has no host, and no edge on a machine of its own, called {shown(name)}. "
            f"{nearest(name, machines)}."
        )
    return machines[name]


def bootstrap(
    on: HostSetup, name: str, user: str, key: str, plan: bool, restart: bool, progress: Progress
) -> BootstrapReport:
    """Bring the host `name` to its wanted facts, or with `plan` only read what differs.

    Raises FleetError at the first fact that cannot be made; the next run goes on from there.
    """
    began = time.monotonic()
    host = machine(on, name)
    deploy = on.fleet.ssh_of(host)
    wheels = read_wheelhouse(on.settings)
    facts = host_facts(on, name, wheels)
    with root_shell(on, host, user, key) as root:
        if plan:
            return bootstrap_report(name, planned_changes(root, facts), "", began)
        changes = converge(root, facts, wheels.folder, restart, progress)
    return bootstrap_report(
        name, changes, see_serving(host, deploy, on.settings.start_timeout_s), began
    )


@contextmanager
def root_shell(on: HostSetup, host: Host, user: str, key: str) -> Iterator[RootShell]:
    """Root at `host`, by the account and the key that are given, else by those of the settings.

    Raises FleetConfigError without a pin of the host or without the key, Unreachable.
    """
    own = replace(
        on.fleet.ssh_of(host),
        user=user or on.settings.user,
        key=Path(key).expanduser() if key else on.settings.key,
    )
    _require_access(host, own)
    with closing(open_shell(host, own)) as shell:
        yield RootShell(shell)


def _require_access(host: Host, own: Ssh) -> None:
    """Raises FleetConfigError without a pin of the host, or without the key."""
    name, known = host.name, own.known_hosts
    if not known.exists() or not pinned_keys(known, host.address, own.port).keys:
        raise FleetConfigError(
            f"{name} has no host key in {known}. Nothing was sent. Read its fingerprint "
            f"on its console and type: fab pin {name} --fingerprint SHA256:..."
        )
    if not os.access(own.key, os.R_OK):
        raise FleetConfigError(
            f"there is no SSH key at {own.key} that this user can read. Name the key of "
            f"{own.user} at {name}: fab bootstrap {name} --key FILE"
        )


def host_units(on: HostSetup, name: str) -> list[str]:
    """The units of systemd that a bootstrap of `name` writes, as text; asks nobody.

    Raises FleetConfigError for a name that is neither a host nor an edge on its own machine.
    """
    found = machine(on, name).name
    if found in on.site.hosts:
        texts = unit_texts(host_layout(on.site, on.settings, found))
    else:
        texts = edge_unit_texts(edge_layout(on.site, on.settings, found, on.latency_edges_s))
    return [f"# {UNITS}/{unit}\n{text}" for unit, text in texts.items()]


def host_facts(on: HostSetup, name: str, wheels: Wheelhouse) -> list[HostFact]:
    """The wanted facts of the host `name`, with the site's keys. Raises FleetConfigError."""
    paths = on.site.paths
    host, keys = on.fleet.host(name), on.settings.fetch_keys
    trust = HostTrust(
        deploy_public_key(on),
        _text(paths.allowed_signers, "allowed signers"),
        ensure_fetch_key(keys, name).private,
        peers_of(on.fleet, host, keys),
    )
    return serving_host(host_layout(on.site, on.settings, name), trust, wheels)


def deploy_public_key(on: HostSetup) -> str:
    """The public half of the deploy key. Raises FleetConfigError."""
    key = on.site.paths.deploy_key
    return _text(key.with_name(key.name + ".pub"), "deploy key")


def _text(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FleetConfigError(
            f"there is no {what} at {path}: the site's keys come first (conf/site, paths)."
        ) from None
    except OSError as error:
        raise denied(f"cannot read the {what}", path, error) from error


def bootstrap_report(
    name: str, changes: Sequence[object], outcome: str, began: float
) -> BootstrapReport:
    """The report of a bootstrap that `began` then, by `time.monotonic`."""
    return BootstrapReport(
        name, tuple(map(str, changes)), outcome, round(time.monotonic() - began, 1)
    )
