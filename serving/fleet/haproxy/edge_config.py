"""An edge as HAProxy reads it: `haproxy_cfg(site, name)` is the whole file.

What the edge promises to clients and to a rollout:

- only inference, readiness and metadata pass; model control, shared memory, trace and statistics
  of Triton cannot be reached from outside, whatever is sent;
- a request reaches a host whole and well formed (`kserve_check.lua`), or not at all: a client's
  mistake is answered 4xx here, and one client's flood or slowness is that client's alone;
- a queue that is full answers 503 at once, with the time to wait;
- a host that dies is left out within `fall x inter`, one that answers with failures alone at once,
  and a request that could not even be *connected* to it goes to another host, in the end to one of
  another region; a request that may have been executed is never sent again;
- a request that names no version is given one by a map, which a rollout changes at run time;
- a rollout drains, parks and returns a host by the runtime socket, without a reload.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from conf.site_checks import require_us_region
from conf.site_daemons import EdgeSettings
from conf.site_schema import Site, SiteHost, edge_region
from serving.edge_host.names import BACKEND, LAST, STATES
from serving.fleet.haproxy.grpc_edge import grpc_backends, grpc_frontend
from serving.fleet.haproxy.placed_models import (
    EdgePlacement,
    Targets,
    backend_rules,
    edge_placement,
    model_backends,
    queue_rules,
)
from serving.fleet.haproxy.request_log import LOG_LINE_BYTES, LOG_RING, log_format, log_relay
from serving.fleet.haproxy.request_rules import (
    VALIDATOR,
    body_rules,
    buffer_settings,
    connection_limits,
    refusal,
    request_ids,
    source_limits,
    source_tables,
)
from serving.fleet.haproxy.shadow_traffic import shadow_proxies, shadow_rules, shadow_socket
from serving.fleet.haproxy.version_map import counter_table, path_rules

# `/v2/models/stats` is Triton's statistics of all models, not a model.
MODEL = "(?!stats(?:/|$))[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"
# One anchored list for both regular expressions: what is not here is answered 403.
READ_PATHS = rf"^/v2/(health/(live|ready)|models/{MODEL}(/versions/[0-9]{{1,9}})?(/ready)?)$"
INFER_PATHS = rf"^/v2/models/{MODEL}(/versions/[0-9]{{1,9}})?/infer$"


def haproxy_cfg(site: Site, name: str, validator: Sequence[Path] = VALIDATOR) -> str:
    """The HAProxy 2.6 configuration of the edge called `name`, ending in a newline.

    `validator` are the files of `VALIDATOR` where HAProxy's user can read them. Of `site` it reads
    `edges[name]`, `edge`, `hosts`, `placement`, `ports`, `paths.edge_log` and `groups.edge`.
    Raises `ValueError` for a region without a host, or that is not one of the United States.
    """
    if name not in site.edges:
        raise ValueError(f"there is no edge {name!r}; site.edges has {', '.join(site.edges)}.")
    edge = site.edges[name]
    region = edge_region(name, edge)
    require_us_region("region", region)
    own = {one: host for one, host in site.hosts.items() if host.region == region}
    others = {one: host for one, host in site.hosts.items() if host.region != region}
    if not site.edge.backup_regions:
        others = {}
    if not own:
        raise ValueError(
            f"region {region!r} has no host in site.hosts: nothing to send traffic to."
        )
    placed = edge_placement(site.placement, own, others)
    http, grpc, agent = site.ports.triton_http, site.ports.triton_grpc, site.ports.host_agent
    return "\n".join(
        [
            *_global(edge.socket, site.groups.edge, Path(edge.state)),
            *shadow_socket(Path(edge.socket)),
            *buffer_settings(site.edge, validator),
            *log_relay(site.paths.edge_log, Path(f"{edge.socket}.log")),
            *_defaults(site.edge),
            *_frontend(
                f"{_address(edge.address)}:{edge.http_port}",
                _address(region),
                _address(name),
                site.edge,
                Path(edge.state),
                placed,
            ),
            *_backend(_targets(own, http), _targets(others, http), site.edge, agent, placed),
            *_last(_targets(own, http), site.edge, agent, placed),
            *model_backends(placed, _targets(site.hosts, http), site.edge, _sending()),
            *grpc_frontend(
                f"{_address(edge.address)}:{edge.grpc_port}",
                _address(region),
                _address(name),
                site.edge,
                Path(edge.state),
                placed,
            ),
            *grpc_backends(_targets(own, grpc), _targets(others, grpc), site.edge, placed),
            *shadow_proxies(Path(edge.socket), _targets(own, http), site.edge, placed),
            *source_tables(),
            *counter_table(),
            *_prometheus(f"{_address(edge.address)}:{edge.stats_port}"),
            "",
        ]
    )


def validator_at(folder: Path) -> list[Path]:
    """The files of `VALIDATOR` where they were copied to `folder`."""
    return [folder / path.name for path in VALIDATOR]


def edge_config_diff(site: Site, name: str, current: str, validator: Sequence[Path]) -> list[str]:
    """Lines that a new config of the edge would remove (-) and add (+), with their sections.

    Empty where `current`, the text that its HAProxy has, is the one of the site.
    """
    wanted = haproxy_cfg(site, name, validator).splitlines()
    lines = difflib.unified_diff(current.splitlines(), wanted, "has", "site", n=2, lineterm="")
    return list(lines)[2:]


def _targets(hosts: Mapping[str, SiteHost], port: int) -> dict[str, str]:
    return {name: f"{_address(host.address)}:{port}" for name, host in hosts.items()}


def _global(socket: Path, group: str, state: Path) -> list[str]:
    # The socket can take hosts out of service: beside HAProxy only the deploy identity is in this
    # group. Readers (Prometheus) have the statistics port.
    return [
        "# Written by serving/fleet/haproxy/edge_config.py; edit conf/site, not this file.",
        "global",
        f"  stats socket {socket} group {group} mode 660 level admin",
        "  stats timeout 30s",
        f"  server-state-file {state / STATES}",
    ]


def _defaults(settings: EdgeSettings) -> list[str]:
    return [
        "defaults",
        "  mode http",
        # Not in `global`: HAProxy logs there what Lua sends, in a form of its own.
        f"  log ring@{LOG_RING} len {LOG_LINE_BYTES} format raw local0",
        f"  timeout connect {settings.connect_timeout_ms}ms",
        f"  timeout client {settings.client_timeout_ms}ms",
        f"  timeout server {settings.server_timeout_ms}ms",
        f"  timeout queue {settings.queue_timeout_ms}ms",
        f"  timeout http-request {settings.header_timeout_ms}ms",
        f"  timeout check {settings.check_interval_ms}ms",
        # What a rollout set holds after a restart and a reload.
        "  load-server-state-from-file global",
    ]


def _frontend(
    bind: str,
    region: str,
    edge: str,
    settings: EdgeSettings,
    state: Path,
    placed: EdgePlacement,
) -> list[str]:
    return [
        "frontend infer",
        f"  bind {bind}",
        *connection_limits(settings),
        *request_ids(),
        "  http-request set-var(txn.model) path,field(4,/) if { path_beg /v2/models/ }",
        *source_limits(settings),
        f"  acl read_path path -m reg {READ_PATHS}",
        f"  acl infer_path path -m reg {INFER_PATHS}",
        "  http-request deny deny_status 403 unless read_path or infer_path",
        "  http-request deny deny_status 405 if read_path !METH_GET",
        "  http-request deny deny_status 405 if infer_path !METH_POST",
        *body_rules(settings),
        # Here and not earlier: it is the state in which the request itself would begin to wait.
        *queue_rules(placed, BACKEND, settings.max_queue, refusal),
        *path_rules(state),
        *shadow_rules(),
        "  http-after-response set-header X-Request-Id %[unique-id]",
        f"  http-after-response set-header Retry-After {settings.retry_after_s} "
        "if { status 503 } or { status 429 }",
        f"  {log_format(region, edge)}",
        *backend_rules(placed, BACKEND, LAST),
    ]


def _backend(
    own: Targets,
    others: Targets,
    settings: EdgeSettings,
    agent_port: int,
    placed: EdgePlacement,
) -> list[str]:
    check = (
        f"check inter {settings.check_interval_ms}ms fall {settings.fall} rise {settings.rise} "
        # A dead stub: Triton is live and ready, and answers every request with 500. Until the
        # host's agent has seen it, so many failures in a row leave the host out for a moment.
        f"observe layer7 error-limit {settings.error_limit} on-error mark-down "
        f"{_host_settings(settings, agent_port)}"
    )
    return [
        f"backend {BACKEND}",
        *_sending(),
        # Not only the first of the other regions' hosts, when the own ones are all out.
        "  option allbackups",
        # Liveness, not /v2/health/ready: that one turns false on every host while any model loads
        # and stays so after a failed load, so a rollout would empty the region. Whether a version
        # answers rightly is checked by golden examples, before the host is given back to the edge.
        # A restarted Triton opens its port only after the models it served are loaded again.
        "  option httpchk",
        "  http-check send meth GET uri /v2/health/live",
        "  http-check expect status 200",
        *(f"  server {name} {target} {check}{placed.weight(name)}" for name, target in own.items()),
        # In this backend, so that a request whose host died just now finds them too.
        *(
            f"  server {name} {target} {check}{placed.weight(name)} backup"
            for name, target in others.items()
        ),
    ]


def _last(
    own: Targets, settings: EdgeSettings, agent_port: int, placed: EdgePlacement
) -> list[str]:
    # A client whose requests fail the model would leave out host after host by their failures, and
    # take the region from everybody. So where nobody is left, the own hosts are tried all the same:
    # those that a rollout did not take out, and whose agent does not say that they answer wrong.
    return [
        f"backend {LAST}",
        *_sending(),
        *(
            f"  server {name} {target} {_host_settings(settings, agent_port)}{placed.weight(name)}"
            for name, target in own.items()
        ),
    ]


def _sending() -> list[str]:
    return [
        # Dynamic, so that weights and states can be set at run time.
        "  balance leastconn",
        # Only a connection that was never made may be tried elsewhere: then the host has had
        # nothing. An empty response, a reset or a 5xx may come after the model ran, and a POST must
        # not run twice; a rollout loses nothing by it, because it drains first.
        "  retries 3",
        "  retry-on conn-failure",
        "  option redispatch 1",
    ]


def _host_settings(settings: EdgeSettings, agent_port: int) -> str:
    # Where nobody listens on the agent's port, nothing changes.
    return (
        f"agent-check agent-port {agent_port} agent-inter {settings.agent_interval_ms}ms "
        f"maxconn {settings.max_connections_per_host}"
    )


def _prometheus(bind: str) -> list[str]:
    return [
        "frontend prometheus",
        f"  bind {bind}",
        "  no log",
        "  http-request use-service prometheus-exporter if { path /metrics }",
        "  http-request deny deny_status 404",
    ]


def _address(text: Any) -> str:
    """`text` if it is an IP address or a plain host name: it goes into a config file as it is."""
    name = str(text)
    try:
        return str(ip_address(name))
    except ValueError:
        if name and all(part.isalnum() for part in name.replace("-", ".").split(".")):
            return name
        raise ValueError(f"{name!r} is neither an IP address nor a host name.") from None
