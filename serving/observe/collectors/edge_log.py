"""The edges' request log as availability and latency: Triton 2.51 has no histogram to add up.

Every edge sends one JSON line per request over UDP. A line that cannot be read is counted and
dropped; what is not in the site's or the ledger's lists becomes `other`, so that no client can
make a series.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram

OTHER = "other"
SERVER_REASONS = (
    "no_host",  # every host of the region was out, drained or full
    "connect",  # a host did not take the connection
    "queue_timeout",  # waited at the edge for a free host, too long
    "timeout",  # a host did not answer in time
    "host_died",  # the host closed or broke the connection before it answered
    "cut",  # the answer ended in the middle
    "model_error",  # Triton answered 500
    "unavailable",  # Triton answered 503 or another 5xx: overload, or the version is going away
    "not_loaded",  # the host does not serve a model of this site
)
CLIENT_REASONS = (
    "client_aborted",  # the client went away or was silent
    "rejected",  # the request was wrong: 4xx by Triton
    "denied",  # the edge does not let this pass
)
REASONS = (*SERVER_REASONS, *CLIENT_REASONS)
KINDS = ("infer", "other", "notice", "malformed")

_INFER = re.compile(r"(?:https?://[^/]*)?/v2/models/([^/?]+)(/versions/\d+)?/infer(\?|\Z)")
_MAX_DATAGRAM = 65_535


@dataclass(frozen=True)
class Request:
    """One inference request as the edge saw it. `reason` is empty where it was answered well."""

    region: str
    model: str
    reason: str
    seconds: float


def parse_line(line: bytes, hosts: Mapping[str, str], models: Iterable[str]) -> Request | None:
    """The request in one log line; None for a line about anything but inference.

    `hosts` maps host to region; `models` are those that are deployed. Raises ValueError for a line
    that is not of this log.
    """
    entry = json.loads(line.decode("utf-8", "replace"))
    if not isinstance(entry, dict):
        raise ValueError("not an object")
    path, status, term = entry.get("path"), entry.get("status"), entry.get("term")
    if not (isinstance(path, str) and isinstance(term, str) and type(status) is int):
        raise ValueError("path, status or term is missing")
    match = _INFER.match(path)
    if match is None:
        return None
    known = match.group(1) in models
    region = str(entry.get("region"))
    if region not in hosts.values():
        region = hosts.get(str(entry.get("srv")), OTHER)
    milliseconds = entry.get("ta_ms")
    if type(milliseconds) is not int:
        raise ValueError("ta_ms is missing")
    return Request(
        region=region,
        model=match.group(1) if known else OTHER,
        reason=failure_reason(status, term, known and match.group(2) is None),
        seconds=max(0, milliseconds) / 1e3,
    )


def failure_reason(status: int, term: str, should_be_loaded: bool) -> str:
    """The reason of a failed request by its status and HAProxy's termination state; else empty.

    `should_be_loaded`: the model is deployed and the client named no version of its own.
    """
    first, second = f"{term}--"[0], f"{term}--"[1]
    if first in "Cc":
        return "client_aborted"
    if first == "P":
        return "denied" if status < 500 else "unavailable"
    if first in "Ss" and second in "QCHD":
        if status == 503 and second == "C":
            return "no_host" if first == "S" else "connect"
        return {
            "Q": "queue_timeout",
            "C": "connect",
            "H": "timeout" if first == "s" else "host_died",
            "D": "cut",
        }[second]
    if status == 500:
        return "model_error"
    if status >= 500:
        return "unavailable"
    if status == 404 and should_be_loaded:
        return "not_loaded"
    if status >= 400:
        return "rejected"
    return "" if 200 <= status < 400 else "cut"


class EdgeLog:
    """Counts and latencies of all regions; every series of a model exists at 0 first."""

    def __init__(
        self, hosts: Mapping[str, str], edges_s: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self.hosts = dict(hosts)
        self.models: frozenset[str] = frozenset()
        labels = ("region", "model")
        self.requests = Counter(
            "lockgate_requests", "Inference requests at the edge.", labels, registry=registry
        )
        self.failures = Counter(
            "lockgate_request_failures",
            "Inference requests that were not answered well, by reason.",
            (*labels, "reason"),
            registry=registry,
        )
        self.seconds = Histogram(
            "lockgate_request_duration_seconds",
            "First byte of the request to last byte of the answer, of requests answered well.",
            labels,
            buckets=tuple(edges_s),
            registry=registry,
        )
        self.lines = Counter(
            "lockgate_edge_log_lines", "Log lines received.", ("kind",), registry=registry
        )
        for kind in KINDS:
            self.lines.labels(kind)
        self.set_models(())

    def set_models(self, models: Iterable[str]) -> None:
        """Give these models series of their own; earlier models keep theirs."""
        self.models = self.models | frozenset(models)
        for region in sorted(set(self.hosts.values())):
            for model in (*sorted(self.models), OTHER):
                self.requests.labels(region, model)
                self.seconds.labels(region, model)
                for reason in REASONS:
                    self.failures.labels(region, model, reason)

    def take(self, line: bytes) -> None:
        """Count one datagram; never raises for what is in it."""
        if not line.startswith(b"{"):
            # HAProxy's own notices: a host went down, a configuration was taken up.
            self.lines.labels("notice").inc()
            return
        try:
            request = parse_line(line, self.hosts, self.models)
        except (ValueError, RecursionError):
            self.lines.labels("malformed").inc()
            return
        if request is None:
            self.lines.labels("other").inc()
            return
        self.lines.labels("infer").inc()
        self.requests.labels(request.region, request.model).inc()
        if request.reason:
            self.failures.labels(request.region, request.model, request.reason).inc()
        else:
            self.seconds.labels(request.region, request.model).observe(request.seconds)


def listen(log: EdgeLog, address: str, port: int) -> tuple[socket.socket, threading.Thread]:
    """Receive datagrams for `log` in a thread until the socket is closed. Raises OSError."""
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    # A burst waits here while a scrape is answered; what does not fit is lost without a word.
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    try:
        receiver.bind((address, port))
    except OSError:
        receiver.close()
        raise

    # A closed socket does not end a recv that waits on it: look up now and then.
    receiver.settimeout(0.2)

    def receive() -> None:
        while True:
            try:
                line = receiver.recv(_MAX_DATAGRAM)
            except TimeoutError:
                continue
            except OSError:
                return  # closed: the end
            log.take(line)

    thread = threading.Thread(target=receive, name="edge-log", daemon=True)
    thread.start()
    return receiver, thread
