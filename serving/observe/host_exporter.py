#!/usr/bin/env python3
"""Metrics of one serving host: the outcome and the age of its last verification of itself.

This one file is complete: it needs python3's standard library only, and runs as a script on a host
where nothing of Lockgate is installed:

    python3 host_exporter.py --state STATE/verified.json --address 10.0.0.7 --port 18003

The host's verifier writes the file, `{"at": "2026-01-31T23:59:59Z", "ok": true, "faults": []}`;
this program, another user, shows it to Prometheus at /metrics and does nothing else. A file that
is not there has no series (`HostVerificationOld` fires), one that cannot be understood is shown as
a verification that failed.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_MAX_STATE = 1 << 20
_TIMEOUT_S = 10


@dataclass(frozen=True)
class LastVerification:
    """The last verification: when (seconds since the epoch), whether all was as signed, and how
    many faults it names."""

    at: float
    ok: bool
    faults: int


def read_verification(path: Path) -> LastVerification | None:
    """The verification in `path`; None where there was none yet.

    Raises ValueError or OSError for a file that is not of the verifier's form.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_STATE + 1)
    except FileNotFoundError:
        return None
    if len(data) > _MAX_STATE:
        raise ValueError(f"it is larger than {_MAX_STATE} bytes")
    try:
        content = json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    at, ok, faults = (content.get(key) for key in ("at", "ok", "faults"))
    if not (isinstance(at, str) and isinstance(ok, bool) and isinstance(faults, list)):
        raise ValueError("it lacks at, ok or faults")
    moment = datetime.fromisoformat(at[:-1] + "+00:00" if at.endswith("Z") else at)
    if moment.tzinfo is None:
        raise ValueError(f"at is {at!r}, without a time zone")
    return LastVerification(moment.timestamp(), ok, len(faults))


def metrics_page(path: Path) -> str:
    """The metrics of the host whose verifier writes `path`, in Prometheus' text format."""
    try:
        found = read_verification(path)
    except (OSError, ValueError) as error:
        print(f"host_exporter: {path} cannot be read: {error}", file=sys.stderr, flush=True)
        return _gauge("success", "1 if every file on the host is as signed.", 0)
    if found is None:
        return ""
    return (
        _gauge("success", "1 if every file on the host is as signed.", int(found.ok))
        + _gauge("faults", "Faults that the last verification named.", found.faults)
        + _gauge("timestamp_seconds", "When the host last verified itself.", found.at)
    )


def _gauge(name: str, text: str, value: float) -> str:
    name = f"lockgate_host_verification_{name}"
    return f"# HELP {name} {text}\n# TYPE {name} gauge\n{name} {value}\n"


def metrics_server(path: Path, address: str, port: int) -> ThreadingHTTPServer:
    """A server of `metrics_page(path)` at /metrics; anything else is 404. Raises OSError."""

    class Handler(BaseHTTPRequestHandler):
        timeout = _TIMEOUT_S

        def do_GET(self) -> None:
            known = self.path == "/metrics"
            body = metrics_page(path).encode() if known else b"there is /metrics\n"
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """A scrape every few seconds is no news."""

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        daemon_threads = True

    return Server((address, port), Handler)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal ends the process; 1 for an address or port that cannot be had."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--state", type=Path, required=True, metavar="FILE")
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args(argv)
    try:
        server = metrics_server(options.state, options.address, options.port)
    except OSError as error:
        print(f"host_exporter: {options.address}:{options.port}: {error}", file=sys.stderr)
        return 1
    with server:
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
