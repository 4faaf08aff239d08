"""The edges' request log as availability and latency: Triton 2.51 has no histogram to add up.

Every edge sends one JSON line per request to a unix socket that it alone can write to. A line that
cannot be read is counted and dropped; what is not in the site's or the ledger's lists becomes
`other`, so that no client can make a series.
"""

from __future__ import annotations

import json
import re
import socketserver
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram

from serving.observe.collectors.version_series import VersionSeries

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
_VERSION = re.compile(r"[0-9]{1,9}")
_MAX_LINE = 65_536
_MODE = 0o020
"""Of the socket: its group, which is the edge's, may write; the other programs of its owner not."""


@dataclass(frozen=True)
class Request:
    """One inference request as the edge saw it. `reason` is empty where it was answered well,
    `version` where the edge gave it none."""

    region: str
    model: str
    reason: str
    seconds: float
    version: str = ""


def line_entry(line: bytes) -> dict[str, object]:
    """The JSON object of one log line. Raises ValueError for a line that is not of this log."""
    entry = json.loads(line.decode("utf-8", "replace"))
    if not isinstance(entry, dict):
        raise ValueError("not an object")
    return entry


def parse_entry(
    entry: Mapping[str, object], hosts: Mapping[str, str], models: Iterable[str]
) -> Request | None:
    """The request in one log line; None for a line about anything but inference.

    `hosts` maps host to region; `models` are those that are deployed. Raises ValueError for an
    entry that is not of this log.
    """
    path, status, term = entry.get("path"), entry.get("status"), entry.get("term")
    if not (isinstance(path, str) and isinstance(term, str) and type(status) is int):
        raise ValueError("path, status or term is missing")
    match = _INFER.match(path)
    if match is None:
        return None
    known = match.group(1) in models
    version = str(entry.get("version", ""))
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
        version=version if known and _VERSION.fullmatch(version) else "",
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
    """Counts and latencies of all regions; every series of a model exists at 0 first.

    `edges` are the names of the edges whose lines are counted apart.
    """

    def __init__(
        self,
        hosts: Mapping[str, str],
        edges: Iterable[str],
        edges_s: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self.hosts, self.edges = dict(hosts), frozenset(edges)
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
        self.versions = VersionSeries(edges_s, registry)
        self.lines = Counter(
            "lockgate_edge_log_lines", "Log lines received.", ("kind", "edge"), registry=registry
        )
        for kind in KINDS:
            for edge in (*self.edges, OTHER):
                self.lines.labels(kind, edge)
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
        """Count one line; never raises for what is in it."""
        if not line.startswith(b"{"):
            # HAProxy's own notices: a host went down, a configuration was taken up.
            self.lines.labels("notice", OTHER).inc()
            return
        try:
            entry = line_entry(line)
            request = parse_entry(entry, self.hosts, self.models)
        except (ValueError, RecursionError):
            self.lines.labels("malformed", OTHER).inc()
            return
        # One that names none: its edge has an older config, or it is a line of somebody else.
        edge = str(entry.get("edge"))
        edge = edge if edge in self.edges else OTHER
        if request is None:
            self.lines.labels("other", edge).inc()
            return
        self.lines.labels("infer", edge).inc()
        self.requests.labels(request.region, request.model).inc()
        if request.reason:
            self.failures.labels(request.region, request.model, request.reason).inc()
        else:
            self.seconds.labels(request.region, request.model).observe(request.seconds)
        if request.version and request.reason not in CLIENT_REASONS:
            failed = bool(request.reason)
            self.versions.count(
                request.region, request.model, request.version, request.seconds, failed
            )


class EdgeLogServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Receiver of the edges' lines: a connection for each edge, a thread for each connection."""

    daemon_threads = True

    def __init__(self, log: EdgeLog, path: Path) -> None:
        path.unlink(missing_ok=True)  # of an exporter that was killed
        self.log = log
        super().__init__(str(path), _LineHandler)
        path.chmod(_MODE)

    def close(self) -> None:
        """Take no more connections; lines of those that are open are counted while the process
        lives."""
        self.shutdown()
        self.server_close()


class _LineHandler(socketserver.StreamRequestHandler):
    server: EdgeLogServer

    def handle(self) -> None:
        while line := self.rfile.readline(_MAX_LINE):
            self.server.log.take(line.rstrip(b"\n"))


def listen(log: EdgeLog, path: Path) -> tuple[EdgeLogServer, threading.Thread]:
    """Receive lines for `log` at the unix socket `path`, in threads. Raises OSError.

    A folder that only the edge's group may enter keeps everybody else out; where it has the mode
    2710, the socket gets that group. Another reader that lives loses its socket: take a port first.
    """
    server = EdgeLogServer(log, path)
    thread = threading.Thread(
        target=server.serve_forever, args=(0.2,), name="edge-log", daemon=True
    )
    thread.start()
    return server, thread
