"""The door of a serving host: the only way from the network to its Triton's gRPC.

Triton has inference and model control on one gRPC port, so that port is a unix socket, and the
door, which runs as Triton's user, is the one process that passes requests from TCP to it: those for
the methods of inference, by exact path. Everything else, control above all, ends here.
"""

from __future__ import annotations

from conf.site_daemons import EdgeSettings
from serving.fleet.haproxy.grpc_status import (
    TRITON_STATUSES,
    grpc_refusal,
    is_method,
    own_errors,
)

_BUFFER_BYTES = 65_536
"""More than the head of any request that an edge lets pass."""


def door_cfg(bind: str, grpc_target: str, settings: EdgeSettings) -> str:
    """The HAProxy configuration of one door, ending in a newline.

    `bind` is `address:port` of clients (the edges), `grpc_target` is `unix:PATH` of Triton.
    """
    return "\n".join(
        [
            "# Written by serving/fleet/haproxy/grpc_door.py; edit conf/site, not this file.",
            "global",
            f"  maxconn {settings.max_connections}",
            f"  tune.bufsize {_BUFFER_BYTES}",
            "defaults",
            "  mode http",
            f"  timeout connect {settings.connect_timeout_ms}ms",
            f"  timeout server {settings.server_timeout_ms}ms",
            f"  timeout http-request {settings.header_timeout_ms}ms",
            # Longer than an edge keeps a connection that it does not use: the edge closes it, and
            # never sends a request into one that is being closed here.
            "  timeout client 1h",
            "frontend door",
            f"  bind {bind} proto h2",
            *own_errors(),
            is_method(),
            grpc_refusal(404, "this method is not served here", "!is_method"),
            "  http-after-response set-header content-type application/grpc",
            "  default_backend triton",
            "backend triton",
            f"  server triton unix@{grpc_target.removeprefix('unix:')} proto h2",
            *(
                f"  http-response set-status {status} if {{ res.hdr(grpc-status) -m str {codes} }}"
                for status, codes in TRITON_STATUSES.items()
            ),
            "",
        ]
    )
