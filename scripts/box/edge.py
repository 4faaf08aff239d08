"""The edges: one HAProxy per region. What it does with a request is the fleet's to say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scripts.box.probe import http_ok
from scripts.box.program import File, Folder, Port, Program
from serving.fleet.edge_config import haproxy_cfg


def folders(site: Any) -> list[Folder]:
    # HAProxy makes its runtime socket here and hands it to the edge group, being a member.
    user, group = str(site.users.haproxy), str(site.groups.edge)
    parents = sorted({Path(edge.socket).parent for edge in site.edges.values()})
    return [Folder(path, user, group) for path in parents]


def programs(site: Any) -> list[Program]:
    made = []
    for region, edge in site.edges.items():
        config = File(Path(site.paths.etc) / f"haproxy-{region}.cfg", haproxy_cfg(site, region))
        key, address = f"site.edges.{region}", str(edge.address)
        made.append(
            Program(
                name=f"haproxy-{region}",
                argv=("/usr/sbin/haproxy", "-db", "-f", str(config.path)),
                user=str(site.users.haproxy),
                files=(config,),
                ports=(
                    Port(address, edge.http_port, f"{key}.http_port"),
                    Port(address, edge.stats_port, f"{key}.stats_port"),
                ),
                probe=http_ok(f"http://{address}:{edge.stats_port}/metrics"),
            )
        )
    return made
