"""Limits and checks of a request at the edge: everything that is answered before a host sees it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from conf.site_daemons import EdgeSettings

CONNECTIONS, REQUESTS = "connections_by_source", "requests_by_source"
"""Tables of client addresses: connections now and requests a second, and requests in flight."""
_LUA = (
    *("strict_json", "tensor_data", "kserve_check"),
    *("grpc_message", "grpc_parameters", "grpc_check", "grpc_version", "shadow_traffic"),
)
VALIDATOR = tuple(Path(__file__).with_name(f"{name}.lua") for name in _LUA)
"""The Lua files of the edge, in the order in which HAProxy loads them."""
_SPARE_BYTES = 16_384
"""Of a buffer, for what HAProxy adds to a head, and its own bookkeeping."""
BUFFER_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
}
"""Environment of an edge's HAProxy: glibc keeps the memory of freed buffers, up to 256 MiB.

A buffer has room for the largest body, and a gRPC request, which may be sent again, is copied with
the whole of its buffer. In memory new from the kernel each time that is a fault for each page: some
9 ms of CPU for a request of 1 kB, against 4. 32 MiB is the most that glibc takes for a threshold
(https://man7.org/linux/man-pages/man3/mallopt.3.html); larger buffers are mapped each time.
"""


def buffer_settings(settings: EdgeSettings, validator: Sequence[Path]) -> list[str]:
    """Lines of `global`: room for a whole request, and the validator."""
    # Head and body lie in one buffer, the head twice: as it came and as blocks of header lines.
    size = settings.max_body_bytes + 2 * settings.max_header_bytes + _SPARE_BYTES
    return [
        f"  maxconn {settings.max_connections}",
        f"  tune.bufsize {size}",
        # A state for each thread: in one, a large request would hold up every other.
        *(f"  lua-load-per-thread {path}" for path in validator),
        "  tune.lua.session-timeout 30s",
        # Instructions of the validator at a time, some 50 us: small requests go on between them.
        "  tune.lua.forced-yield 1000",
    ]


def connection_limits(settings: EdgeSettings) -> list[str]:
    """Rules on the connections of one client address."""
    return [
        f"  tcp-request connection track-sc0 src table {CONNECTIONS}",
        f"  tcp-request connection reject if {{ sc0_conn_cur gt "
        f"{settings.max_connections_per_source} }}",
    ]


def request_ids() -> list[str]:
    """Rules that give a request an id, and a place in its trace."""
    return [
        "  unique-id-format %[uuid()]",
        "  http-request set-header X-Request-Id %[unique-id]",
        # A well-formed W3C trace context goes on; anything else is replaced by a fresh one.
        "  acl tp_ok req.hdr(traceparent) -m reg ^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
        "  acl tp_zero req.hdr(traceparent) -m reg ^00-0{32}-|-0{16}-",
        "  http-request set-var(txn.tid) req.hdr(traceparent),field(2,-) if tp_ok !tp_zero",
        "  http-request set-var(txn.tid) uuid(),regsub(-,,g) unless { var(txn.tid) -m found }",
        "  http-request set-var(txn.sid) uuid(),regsub(-,,g),bytes(0,16)",
        "  http-request set-var(txn.fl) req.hdr(traceparent),field(4,-) if tp_ok !tp_zero",
        "  http-request set-var(txn.fl) str(00) unless { var(txn.fl) -m found }",
        "  http-request set-var(txn.parent) req.hdr(traceparent),field(3,-) if tp_ok !tp_zero",
        "  http-request set-header traceparent 00-%[var(txn.tid)]-%[var(txn.sid)]-%[var(txn.fl)]",
    ]


def refusal(status: int, sentence: str, condition: str) -> str:
    """A rule that answers `sentence` in Triton's form of an error."""
    body = json.dumps({"error": sentence})
    return (
        f"  http-request deny deny_status {status} content-type application/json "
        f"string '{body}' if {condition}"
    )


def source_limits(
    settings: EdgeSettings, refuse: Callable[[int, str, str], str] = refusal
) -> list[str]:
    """Rules on the head of a request, and on the requests of one client address.

    `refuse` makes the rule of a status, a sentence and a condition.
    """
    head, rate = settings.max_header_bytes, settings.max_requests_per_second_per_source
    in_flight = settings.max_in_flight_per_source
    return [
        f"  http-request track-sc1 src table {REQUESTS}",
        refuse(
            431,
            f"the head of a request may have {head} bytes",
            f"{{ req.hdrs,length gt {head} }} or {{ url,length gt {head} }}",
        ),
        refuse(429, f"at most {rate} requests a second", f"{{ sc0_http_req_rate gt {rate} }}"),
        refuse(
            429, f"at most {in_flight} requests at a time", f"{{ sc1_conn_cur gt {in_flight} }}"
        ),
    ]


def body_rules(settings: EdgeSettings) -> list[str]:
    """Rules that let a request pass when its body is in memory, whole and well formed.

    Of the frontend they use the names `read_path` and `infer_path`.
    """
    most = settings.max_body_bytes
    too_large = f"a body may have {most} bytes"
    most_json = settings.max_json_bytes
    json_too_large = f"JSON may have {most_json} bytes: send tensors as binary data"
    length = "Inference-Header-Content-Length"
    return [
        f"  acl framed req.fhdr({length}) -m found",
        refusal(
            400,
            "a request that reads has no body",
            "read_path { req.body_size gt 0 } or "
            "read_path { req.fhdr(transfer-encoding) -m found }",
        ),
        # Triton would unpack it without a limit, and nobody could check it before.
        refusal(
            415,
            "a compressed body is not taken: send it without Content-Encoding",
            "infer_path { req.fhdr(content-encoding) -m found }",
        ),
        refusal(400, f"{length} is there twice", f"infer_path {{ req.fhdr_cnt({length}) gt 1 }}"),
        refusal(413, too_large, f"infer_path {{ req.body_size gt {most} }}"),
        refusal(
            413, json_too_large, f"infer_path framed {{ req.hdr_val({length}) gt {most_json} }}"
        ),
        refusal(413, json_too_large, f"infer_path !framed {{ req.body_size gt {most_json} }}"),
        f"  http-request wait-for-body time {settings.body_timeout_ms}ms if infer_path",
        refusal(413, too_large, f"infer_path {{ req.body_len gt {most} }}"),
        refusal(413, json_too_large, f"infer_path !framed {{ req.body_len gt {most_json} }}"),
        "  http-request lua.kserve_check if infer_path",
        "  http-request deny deny_status 400 content-type application/json lf-string "
        '\'{"error":"%[var(txn.refusal),json(utf8s)]"}\' '
        "if infer_path { var(txn.refusal) -m found }",
        refusal(
            500,
            "the edge could not check the request",
            "infer_path !{ var(txn.checked) -m str ok }",
        ),
    ]


def source_tables() -> list[str]:
    """The tables that the limits of a client address are counted in."""
    # An address is forgotten when it was silent for a while.
    table = "  stick-table type ipv6 size 100k expire 30s store"
    return [
        f"backend {CONNECTIONS}",
        f"{table} conn_cur,http_req_rate(1s)",
        f"backend {REQUESTS}",
        f"{table} conn_cur",
    ]
