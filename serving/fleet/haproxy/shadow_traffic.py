"""Shadow traffic: copies of a share of the HTTP requests go to a version whose answers nobody sees.

A map gives the version and the share (`version_map.py`); `shadow_traffic.lua` makes the copies and
sends them, by a unix socket, to a frontend of the same HAProxy. Its backend is one of its own: no
copy counts as a request of a host, waits in the clients' queue, or is sent a second time.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from conf.site_daemons import EdgeSettings
from serving.edge_host.names import BACKEND, SHADOW_COUNTERS
from serving.fleet.haproxy.placed_models import (
    EdgePlacement,
    Targets,
    is_model,
    model_backend,
    tracking,
)

_MODEL = "path,field(4,/)"
_SHARE = 16
"""Of the requests that a host may have in flight, copies are one in so many at most."""


def shadow_socket(socket: Path) -> list[str]:
    """Lines of `global` that name the frontend of the copies to Lua."""
    return [f"  setenv SHADOW_SOCKET unix@{_place(socket)}"]


def shadow_rules() -> list[str]:
    """Rules after those of the map, which set `txn.route`; they use the name `infer_path`."""
    return [
        "  http-request set-var(txn.shadow) var(txn.route),field(4,:) if routed infer_path",
        "  http-request set-var(txn.copied) var(txn.route),field(5,:) if routed infer_path",
        "  acl has_shadow var(txn.shadow),add(0) gt 0",
        "  acl copied rand(10000),sub(txn.copied) lt 0",
        "  http-request lua.shadow_request if has_shadow copied",
    ]


def shadow_proxies(
    socket: Path, servers: Targets, settings: EdgeSettings, placed: EdgePlacement
) -> list[str]:
    """The frontend and the backend of the copies; each of `servers` is one of `triton` too."""
    in_flight = max(1, settings.max_connections_per_host // _SHARE)
    counted = "var(txn.counted) -m found"
    others = f" !{is_model(placed.models, _MODEL)}" if placed.models else ""
    sending = (servers, in_flight)
    return [
        "frontend shadow",
        f"  bind unix@{_place(socket)} mode 600",
        "  no log",
        f"  http-request wait-for-body time {settings.body_timeout_ms}ms",
        # Where clients wait, there is no room for copies.
        f"  http-request deny deny_status 503 if {{ queue({BACKEND}) gt 0 }}{others}",
        *(
            "  http-request deny deny_status 503 "
            f"if {{ queue({model_backend(BACKEND, one.model)}) gt 0 }} {is_model([one], _MODEL)}"
            for one in placed.models
        ),
        "  http-request set-var-fmt(txn.counted) %[path,field(4,/)]/%[path,field(6,/)]",
        f"  http-request track-sc2 var(txn.counted) table {SHADOW_COUNTERS}",
        f"  http-response sc-inc-gpc0(2) if {{ status 404 }} {{ {counted} }}",
        *(
            f"  use_backend {model_backend('shadow', one.model)} if {is_model([one], _MODEL)}"
            for one in placed.models
        ),
        "  default_backend shadow",
        *_copies("shadow", [host for host in servers if not placed.weight(host)], *sending),
        *(
            line
            for one in placed.models
            for line in _copies(model_backend("shadow", one.model), one.own, *sending)
        ),
        f"backend {SHADOW_COUNTERS}",
        "  stick-table type string len 80 size 10k store "
        "gpc0,http_req_cnt,http_err_cnt,http_fail_cnt",
    ]


def _copies(backend: str, hosts: Iterable[str], servers: Targets, in_flight: int) -> list[str]:
    return [
        f"backend {backend}",
        "  balance leastconn",
        "  retries 0",
        *tracking(hosts, servers, in_flight, BACKEND),
    ]


def _place(socket: Path) -> str:
    return f"{socket}.shadow"
