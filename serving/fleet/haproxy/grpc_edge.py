"""The clients' gRPC at the edge: HTTP/2, the inference methods alone, checked like JSON.

A request waits in memory until it is whole; `grpc_check.lua` refuses what `kserve_check.lua`
refuses; the map of versions counts for it as for HTTP, and `grpc_version.lua` writes the version
into the message. The hosts' doors (`grpc_door.py`) are what it is sent to.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from conf.site_daemons import EdgeSettings
from serving.edge_host import names as triton
from serving.fleet.haproxy.grpc_status import SERVICE, grpc_refusal, is_method, own_errors
from serving.fleet.haproxy.placed_models import (
    EdgePlacement,
    Targets,
    backend_rules,
    model_backend,
    queue_rules,
    tracking,
)
from serving.fleet.haproxy.request_log import log_format
from serving.fleet.haproxy.request_rules import (
    connection_limits,
    request_ids,
    source_limits,
)
from serving.fleet.haproxy.version_map import VERSION_HEADER, count_rules, version_rules

BACKEND = "triton_grpc"
"""Its servers carry the names of the hosts, and follow those of `triton` in health and state."""
LAST = "triton_grpc_last"
"""As `triton_last`: the own hosts once more, for when the checks leave nobody."""


def grpc_frontend(
    bind: str,
    region: str,
    edge: str,
    settings: EdgeSettings,
    state: Path,
    placed: EdgePlacement,
) -> list[str]:
    """The frontend on `bind`; `state` is the folder of the edge's map of versions; `region` and
    `edge` are names for the log."""
    most = settings.max_body_bytes
    return [
        "frontend infer_grpc",
        f"  bind {bind} proto h2",
        *own_errors(),
        *connection_limits(settings),
        *request_ids(),
        # For the log of a request that ends before it has an answer.
        "  http-request set-var(txn.path) path",
        "  http-request set-var(txn.status) int(0)",
        *source_limits(settings, grpc_refusal),
        f"  http-request set-var(txn.most_bytes) int({most})",
        f"  http-request use-service lua.grpc_too_large if {{ req.body_size gt {most} }}",
        # Refused when it is whole: an answer to a request that is still coming ends, in HAProxy,
        # with a reset of the stream, and the client does not see why.
        f"  http-request wait-for-body time {settings.body_timeout_ms}ms",
        f"  http-request use-service lua.grpc_too_large if {{ req.body_len gt {most} }}",
        is_method(),
        f"  acl is_infer path -m str {SERVICE}/ModelInfer",
        grpc_refusal(404, "this method is not served here", "!is_method"),
        grpc_refusal(405, "a method is called by POST", "!METH_POST"),
        grpc_refusal(
            415, "the content-type must be application/grpc",
            "!{ req.hdr(content-type) -m reg ^application/grpc(\\+proto)?$ }",
        ),
        # Triton would unpack it without a limit, and nobody could check it before.
        grpc_refusal(
            501, "a compressed message is not taken: send it as it is",
            "{ req.hdr(grpc-encoding) -m found } !{ req.hdr(grpc-encoding) -m str identity }",
        ),
        f"  http-request set-var(txn.most_numbers) int({settings.max_json_bytes})",
        "  http-request lua.grpc_check",
        "  http-request return status 400 hdr grpc-status 3 "
        'hdr grpc-message "%[var(txn.refusal)]" if { var(txn.refusal) -m found }',
        grpc_refusal(
            500, "the edge could not check the request", "!{ var(txn.checked) -m str ok }"
        ),
        # The log has the request's path by HTTP.
        "  acl asks_version var(txn.asked) -m len gt 0",
        "  http-request set-var-fmt(txn.path) /v2/models/%[var(txn.model)]/infer "
        "if is_infer !asks_version",
        "  http-request set-var-fmt(txn.path) "
        "/v2/models/%[var(txn.model)]/versions/%[var(txn.asked)]/infer if is_infer asks_version",
        *queue_rules(placed, BACKEND, settings.max_queue, grpc_refusal),
        "  acl has_model var(txn.model) -m found",
        *version_rules(state, "has_model !asks_version", "is_infer"),
        "  acl given_version var(txn.version) -m found",
        *count_rules("given_version is_infer"),
        # The message grows by the version; its frame has its length, HTTP/2 needs none.
        "  http-request del-header content-length",
        "  filter lua.grpc_version",
        f"  http-after-response set-header {VERSION_HEADER} %[var(txn.version)] "
        "if { var(txn.version) -m found }",
        *_answer_rules(settings),
        f"  {log_format(region, edge, path='var(txn.path)', status='%[var(txn.status)]')}",
        *backend_rules(placed, BACKEND, LAST),
    ]  # fmt: skip


def _answer_rules(settings: EdgeSettings) -> list[str]:
    return [
        "  http-after-response set-header X-Request-Id %[unique-id]",
        "  http-after-response set-header content-type application/grpc",
        "  http-after-response del-header content-length",
        f"  http-after-response set-header grpc-retry-pushback-ms {settings.retry_after_s * 1000} "
        "if { status 503 } or { status 429 }",
        # Counted and logged with the status that HTTP has for it; the client's is always 200.
        "  http-after-response set-var(txn.status) status",
        "  http-after-response set-status 200 if { res.hdr(grpc-status) -m found }",
    ]


def grpc_backends(
    own: Targets, others: Targets, settings: EdgeSettings, placed: EdgePlacement
) -> list[str]:
    """The backends of the doors' addresses by host, those of other regions as stand-ins.

    Each follows the server of its name of `triton`, and of `triton_last` where nobody is left.
    Those of the placed models come after those of all hosts.
    """
    lines = _pair(BACKEND, LAST, own, others, settings, placed.weight)
    for one in placed.models:
        lines += _pair(
            model_backend(BACKEND, one.model),
            model_backend(LAST, one.model),
            {host: own[host] for host in one.own},
            {host: others[host] for host in one.others},
            settings,
        )
    return lines


def _pair(
    backend: str,
    last: str,
    own: Targets,
    others: Targets,
    settings: EdgeSettings,
    weight: Callable[[str], str] = lambda host: "",
) -> list[str]:
    def servers(hosts: Targets, followed: str, end: str = "") -> list[str]:
        most = settings.max_connections_per_host
        lines = tracking(hosts, hosts, most, followed, " proto h2")
        return [f"{line}{weight(host)}{end}" for host, line in zip(hosts, lines, strict=True)]

    return [
        *_sending(backend),
        "  option allbackups",
        *servers(own, triton.BACKEND),
        *servers(others, triton.BACKEND, " backup"),
        *_sending(last),
        *servers(own, triton.LAST),
    ]


def _sending(backend: str) -> list[str]:
    return [
        f"backend {backend}",
        "  balance leastconn",
        # As by HTTP, what may have been executed is never sent again. 503 is the door's own answer
        # where no Triton took the connection.
        "  retries 3",
        "  retry-on conn-failure 503",
        "  option redispatch 1",
    ]
