"""The edges: HAProxies, configured by `serving.fleet.haproxy.edge_config`."""

from __future__ import annotations

import os
import pwd
from contextlib import suppress

from conf.site_schema import Site, SiteEdge
from scripts.box.probe import http_ok
from scripts.box.program import File, Folder, Port, Program
from serving.fleet.haproxy.edge_config import haproxy_cfg, validator_at
from serving.fleet.haproxy.request_rules import BUFFER_ENVIRONMENT, VALIDATOR
from serving.fleet.haproxy.server_states import FIRST_FILES


def _own(site: Site) -> dict[str, SiteEdge]:
    """The edges of this machine; others are set up where they run."""
    return {name: edge for name, edge in site.edges.items() if edge.ssh is None}


def folders(site: Site) -> list[Folder]:
    # HAProxy makes its runtime socket here and hands it to the edge group, being a member.
    user, group = site.users.haproxy, site.groups.edge
    parents = sorted({edge.socket.parent for edge in _own(site).values()})
    states = [edge.state for edge in _own(site).values()]
    return [
        *(Folder(path) for path in sorted({path.parent for path in states})),
        # A rollout writes what HAProxy reads at start.
        *(Folder(path, site.users.deploy, group, 0o750) for path in states),
        *(Folder(path, user, group) for path in parents),
        # The reader of the request log makes its socket here, and the folder's group gets it:
        # nobody but HAProxy (and root) can enter and write.
        Folder(site.paths.edge_log.parent, site.users.observe, user, 0o2710),
    ]


def ensure_state(site: Site) -> None:
    """Make the files without which HAProxy does not start; those that are there stay."""
    owner = pwd.getpwnam(site.users.deploy).pw_uid
    for edge in _own(site).values():
        # The folder is the deploy identity's: root follows no link and touches no file of it.
        for name, text in FIRST_FILES.items():
            with suppress(FileExistsError):
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                handle = os.open(edge.state / name, flags, 0o644)
                with os.fdopen(handle, "w") as file:
                    os.fchown(file.fileno(), owner, -1)
                    os.fchmod(file.fileno(), 0o644)
                    file.write(text)


def programs(site: Site) -> list[Program]:
    made = []
    # Copies: HAProxy's user need not be able to read the checkout.
    validator = tuple(File(site.paths.etc / path.name, path.read_text()) for path in VALIDATOR)
    paths = validator_at(site.paths.etc)
    for name, edge in _own(site).items():
        config = File(site.paths.etc / f"haproxy-{name}.cfg", haproxy_cfg(site, name, paths))
        key, address = f"site.edges.{name}", edge.address
        made.append(
            Program(
                name=f"haproxy-{name}",
                argv=("/usr/sbin/haproxy", "-db", "-f", str(config.path)),
                user=site.users.haproxy,
                env=BUFFER_ENVIRONMENT,
                files=(config, *validator),
                ports=(
                    Port(address, edge.http_port, f"{key}.http_port"),
                    Port(address, edge.grpc_port, f"{key}.grpc_port"),
                    Port(address, edge.stats_port, f"{key}.stats_port"),
                ),
                probe=http_ok(edge.metrics_url),
            )
        )
    return made
