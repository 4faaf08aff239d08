#!/usr/bin/env python3
"""Metrics of one serving host: its last verification of itself, and its last golden questions.

This one file is complete: it needs python3's standard library only, and runs as a script on a host
where nothing of Lockgate is installed:

    python3 host_exporter.py --state STATE/verified.json --answers STATE/answers.json \\
        --address 10.0.0.7 --port 18003

The host's verifier writes the files, `{"at": "2026-01-31T23:59:59Z", "ok": true, "faults": []}`
and, by model and version, `{"flowers": {"3": {"at": ..., "ok": true, "seconds": 0.01}}}`; this
program, another user, shows them to Prometheus at /metrics and does nothing else. A file that is
not there has no series (`HostVerificationOld` fires), one that cannot be understood is shown as a
verification that failed, and as golden questions of long ago (`HostAnswersOld`).
"""

from __future__ import annotations

import argparse
import json
import math
import re
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_MAX_STATE = 1 << 20
_MAX_VERSIONS = 50
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_TIMEOUT_S = 10


@dataclass(frozen=True)
class LastVerification:
    """The last verification: when (seconds since the epoch), whether all was as signed, and how
    many faults it names."""

    at: float
    ok: bool
    faults: int


@dataclass(frozen=True)
class LastQuestion:
    """The last golden question to one version: when, whether it was answered as it must be, and
    the seconds that the answer took."""

    model: str
    version: str
    at: float
    ok: bool
    seconds: float


def _read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in `path`, None for no file. Raises ValueError or OSError."""
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
    return content


def _moment(at: str) -> float:
    """Seconds since the epoch of a time in ISO form. Raises ValueError."""
    moment = datetime.fromisoformat(at[:-1] + "+00:00" if at.endswith("Z") else at)
    if moment.tzinfo is None:
        raise ValueError(f"at is {at!r}, without a time zone")
    return moment.timestamp()


def read_questions(path: Path) -> list[LastQuestion]:
    """The golden questions in `path`, in order; none where there was none yet.

    Raises ValueError or OSError for a file that is not of the form, or has too many versions.
    """
    found = []
    for model, versions in sorted((_read_object(path) or {}).items()):
        if not (_NAME.fullmatch(model) and isinstance(versions, dict)):
            raise ValueError(f"{model[:80]!a} is no model with its versions")
        for version, one in sorted(versions.items()):
            if not (_NUMBER.fullmatch(version) and isinstance(one, dict)):
                raise ValueError(f"{version[:80]!a} is no version")
            at, ok, seconds = (one.get(key) for key in ("at", "ok", "seconds"))
            if not (isinstance(at, str) and isinstance(ok, bool)):
                raise ValueError(f"{model}/{version} lacks at or ok")
            if not (isinstance(seconds, int | float) and math.isfinite(seconds)):
                raise ValueError(f"{model}/{version} took {str(seconds)[:80]!a} seconds")
            found.append(LastQuestion(model, version, _moment(at), ok, float(seconds)))
    if len(found) > _MAX_VERSIONS:
        raise ValueError(f"it has more than {_MAX_VERSIONS} versions")
    return found


def read_verification(path: Path) -> LastVerification | None:
    """The verification in `path`; None where there was none yet.

    Raises ValueError or OSError for a file that is not of the verifier's form.
    """
    content = _read_object(path)
    if content is None:
        return None
    at, ok, faults = (content.get(key) for key in ("at", "ok", "faults"))
    if not (isinstance(at, str) and isinstance(ok, bool) and isinstance(faults, list)):
        raise ValueError("it lacks at, ok or faults")
    return LastVerification(_moment(at), ok, len(faults))


def metrics_page(state: Path, answers: Path) -> str:
    """The metrics of the host whose verifier writes the two files, in Prometheus' text format."""
    return _verification_metrics(state) + _question_metrics(answers)


def _question_metrics(path: Path) -> str:
    try:
        found = read_questions(path)
    except (OSError, ValueError) as error:
        print(f"host_exporter: {path} cannot be read: {error}", file=sys.stderr, flush=True)
        # Not that a model answers wrongly, which nobody knows: that nothing is known.
        return _series("golden_timestamp_seconds", _ASKED, [("", 0)])
    if not found:
        return ""
    labelled = [(f'{{model="{one.model}",version="{one.version}"}}', one) for one in found]
    return (
        _series("golden_ok", _OK, [(labels, int(one.ok)) for labels, one in labelled])
        + _series(
            "golden_timestamp_seconds", _ASKED, [(labels, one.at) for labels, one in labelled]
        )
        + _series("golden_seconds", _TOOK, [(labels, one.seconds) for labels, one in labelled])
    )


_OK = "1 if the host's own last golden question to the version was answered as it must be."
_ASKED = "When the host put its last golden question to the version."
_TOOK = "Seconds that the answer to it took."


def _series(name: str, text: str, values: Sequence[tuple[str, float]]) -> str:
    name = f"lockgate_host_{name}"
    lines = "".join(f"{name}{labels} {value}\n" for labels, value in values)
    return f"# HELP {name} {text}\n# TYPE {name} gauge\n{lines}"


def _verification_metrics(path: Path) -> str:
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
    return _series(f"verification_{name}", text, [("", value)])


def metrics_server(state: Path, answers: Path, address: str, port: int) -> ThreadingHTTPServer:
    """A server of `metrics_page` at /metrics; anything else is 404. Raises OSError."""

    class Handler(BaseHTTPRequestHandler):
        timeout = _TIMEOUT_S

        def do_GET(self) -> None:
            known = self.path == "/metrics"
            body = metrics_page(state, answers).encode() if known else b"there is /metrics\n"
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
    parser.add_argument("--answers", type=Path, required=True, metavar="FILE")
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args(argv)
    try:
        server = metrics_server(options.state, options.answers, options.address, options.port)
    except OSError as error:
        print(f"host_exporter: {options.address}:{options.port}: {error}", file=sys.stderr)
        return 1
    with server:
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
