"""The systemd units of an edge's own machine: HAProxy under its master, the exporter of its request
log, and the machine's metrics.

HAProxy is reloaded, never restarted, for a new program, config or Lua file: the master starts a
worker with what is new, and the old one ends what it has.
"""

from __future__ import annotations

from pathlib import Path

from serving.edge_host.installation import edge_log_command
from serving.fleet.bootstrap.edge_layout import HAPROXY, EdgeLayout
from serving.fleet.bootstrap.hardened_unit import (
    NETWORK,
    NO_DEVICES,
    NO_NEW_CODE,
    NODE_EXPORTER,
    RUNS_AGAIN,
    command_line,
    environment_lines,
    node_exporter_unit,
    unit_text,
)
from serving.fleet.haproxy.request_rules import BUFFER_ENVIRONMENT

EDGE = "lockgate-edge.service"
EDGE_LOG = "lockgate-edge-log.service"
_PRIVILEGED_PORTS = 1024


def edge_unit_texts(layout: EdgeLayout) -> dict[str, str]:
    """The text of every unit by its name."""
    units = {EDGE: _edge(layout), EDGE_LOG: _edge_log(layout)}
    if layout.settings.node_exporter:
        program, port = layout.path("bin/node_exporter"), layout.node_exporter_port
        units[NODE_EXPORTER] = node_exporter_unit(program, layout.edge.address, port)
    return units


def _edge(layout: EdgeLayout) -> str:
    master = f"{layout.master},mode,660,group,{layout.edge_group}"
    start = [HAPROXY, "-Ws", "-S", master, "-f", layout.config]
    low = any(port < _PRIVILEGED_PORTS for port in layout.ports)
    bind = [
        f"{key}=CAP_NET_BIND_SERVICE" for key in ("CapabilityBoundingSet", "AmbientCapabilities")
    ]
    return unit_text(
        f"The edge {layout.name}: clients' requests to the hosts of its region",
        [
            "Type=notify",
            f"User={layout.haproxy_user}",
            *environment_lines(BUFFER_ENVIRONMENT),
            f"ExecStart={command_line(start)}",
            # A config with which it would not start ends the reload before anything is changed.
            f"ExecReload={command_line([HAPROXY, '-c', '-q', '-f', layout.config])}",
            "ExecReload=/bin/kill -USR2 $MAINPID",
            "KillMode=mixed",
            "SuccessExitStatus=143",
            *RUNS_AGAIN,
            f"RuntimeDirectory={layout.run.name}",
            # It compiles its regular expressions, so its memory may be writable and executable.
            *NO_DEVICES,
            NETWORK,
            # It hands its sockets to the edge's group, of which it is a member.
            "SystemCallFilter=@chown",
            *(bind if low else ()),
            "UMask=0077",
            "LimitNOFILE=65536",
            "TasksMax=256",
            f"MemoryMax={layout.settings.memory_max}",
        ],
        ["After=network-online.target", "Wants=network-online.target", "StartLimitIntervalSec=0"],
    )


def _edge_log(layout: EdgeLayout) -> str:
    command = edge_log_command(
        Path(layout.ssh.etc),
        layout.log_socket,
        layout.edge.state,
        layout.region,
        layout.edge.address,
        layout.log_port,
        layout.latency_edges_s,
    )
    return unit_text(
        f"The request log of the edge {layout.name}, for Prometheus",
        [
            f"User={layout.ssh.user}",
            f"ExecStart={command_line(command)}",
            *RUNS_AGAIN,
            f"ReadWritePaths={layout.log_socket.parent}",
            *NO_DEVICES,
            NO_NEW_CODE,
            NETWORK,
            # HAProxy, a member of its folder's group, writes to the socket.
            "UMask=0007",
            "TasksMax=64",
            "MemoryMax=256M",
        ],
        ["After=network-online.target", "Wants=network-online.target", "StartLimitIntervalSec=0"],
    )
