"""Attempts of one OS user on every guarded thing of a site, tried for real; prints a JSON object.

Run on its standard input as the user who tries, with the standard library alone, so that it needs
to read nothing of the checkout:

    runuser -u USER -- /usr/bin/python3 -I - '<site as JSON>' < attempts.py

Each attempt returns when the thing could be done, and raises when it was refused. What an attempt
makes it takes away again. The answer: name of the thing -> "done" or the reason of the refusal.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

TIMEOUT_S = 20.0

Attempt = Callable[[dict[str, Any]], None]


def main(argument: str) -> int:
    """Try everything; a thing that has no attempt of its own name is a KeyError."""
    site = json.loads(argument)
    print(json.dumps({name: outcome(ATTEMPTS[name], site) for name in site["things"]}))
    return 0


def outcome(attempt: Attempt, site: dict[str, Any]) -> str:
    try:
        attempt(site)
    except (OSError, Refused, subprocess.TimeoutExpired) as error:
        return f"{type(error).__name__}: {error}"[:300]
    return "done"


class Refused(Exception):
    """The thing was reached and answered no."""


def reading(path: str) -> Attempt:
    return lambda site: _open(site[path])


def listing(path: str) -> Attempt:
    return lambda site: _list(site[path])


def writing(path: str) -> Attempt:
    return lambda site: _write(site[path])


def connecting(path: str) -> Attempt:
    return lambda site: _connect(site[path])


def fetching(path: str, method: str = "GET", body: str | None = None) -> Attempt:
    """An HTTP request with the password that the identity has in its own file, if it has one."""
    return lambda site: _fetch(site[path], method, body, site.get(f"{path}_password"))


def running(path: str, data: bytes = b"") -> Attempt:
    return lambda site: _run(site[path], data)


def _open(path: str) -> None:
    with Path(path).open("rb") as file:
        file.read(1)


def _list(path: str) -> None:
    list(Path(path).iterdir())


def _write(path: str) -> None:
    intruder = Path(path) / "intruder"
    intruder.write_bytes(b"x")
    intruder.unlink()


def _connect(path: str) -> None:
    if os.access(Path(path).parent, os.X_OK) and not Path(path).exists():
        raise AssertionError(f"{path} is not there: this attempt would prove nothing")
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_UNIX, kind) as one:
            one.settimeout(TIMEOUT_S)
            try:
                one.connect(path)
            except OSError as error:
                if error.errno == 91:  # EPROTOTYPE: a datagram socket
                    continue
                raise
            return


def _fetch(url: str, method: str, body: str | None, password_file: str | None) -> None:
    headers = {"Content-Type": "application/json"}
    if password_file and os.access(password_file, os.R_OK):
        user = Path(password_file).name
        pair = f"{user}:{Path(password_file).read_text().strip()}"
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    data = None if body is None else body.encode()
    request = urllib.request.Request(url, data=data, method=method, headers=headers)
    # An HTTP error status is a URLError, which is an OSError.
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        answer.read(1000)


def _run(argv: list[str], data: bytes) -> None:
    done = subprocess.run(argv, input=data, capture_output=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        raise Refused(done.stderr.decode("utf-8", "replace").strip()[-200:])


def submit_job(site: dict[str, Any]) -> None:
    """A job that would start in an hour, cancelled at once."""
    sbatch = ["sbatch", "--parsable", "--begin=now+1hour", "--chdir=/", "--output=/dev/null",
              "--wrap", "true"]  # fmt: skip
    environment = {**os.environ, "SLURM_CONF": site["slurm_conf"]}
    done = subprocess.run(
        sbatch, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if done.returncode:
        raise Refused(done.stderr.strip()[-200:])
    subprocess.run(["scancel", done.stdout.strip()], env=environment, check=True, timeout=TIMEOUT_S)


def list_by_grpc(site: dict[str, Any]) -> None:
    """RepositoryIndex at a host's door, with frames of HTTP/2 by hand."""

    def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
        head = struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream)
        return head + payload

    def literal(name: str, value: str) -> bytes:
        return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()

    fields = {
        ":method": "POST", ":path": "/inference.GRPCInferenceService/RepositoryIndex",
        ":scheme": "http", ":authority": "door", "content-type": "application/grpc",
        "te": "trailers",
    }  # fmt: skip
    head = b"".join(literal(name, value) for name, value in fields.items())
    with socket.create_connection(tuple(site["door"]), timeout=TIMEOUT_S) as link:
        link.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))
        link.sendall(frame(1, 4, 1, head) + frame(0, 1, 1, b"\0" * 5))
        answer = b""
        while not (found := answer.partition(b"grpc-status")[2]):
            part = link.recv(65536)
            if not part:
                raise Refused("the door closed the connection")
            answer += part
    code = found[1 : 1 + found[0]].decode()
    if code != "0":
        raise Refused(f"grpc-status {code}")


ATTEMPTS: dict[str, Attempt] = {
    "release key": reading("release_key"),
    "deploy key": reading("deploy_key"),
    "munge key": reading("munge_key"),
    "signature": running("sign"),
    "candidate's user": running("as_candidate"),
    "gates": listing("gates"),
    "store": writing("store"),
    "runs": writing("runs"),
    "data": writing("data"),
    "journal": writing("journal"),
    "staging": writing("staging"),
    "packages": writing("packages"),
    "repository": writing("repository"),
    "host's programs": writing("host_etc"),
    "login to a host": running("login"),
    "Triton control, gRPC": connecting("triton_grpc"),
    "Triton control, HTTP": fetching("triton_index", "POST", "{}"),
    "Triton control, edge": fetching("edge_index", "POST", "{}"),
    "Triton control, door": list_by_grpc,
    "host's supervisor": connecting("host_supervisor"),
    "site's supervisor": connecting("site_supervisor"),
    "HAProxy": connecting("haproxy"),
    "edge log": connecting("edge_log"),
    "MLflow, runs": fetching("mlflow_runs", "POST", '{"max_results": 1}'),
    "MLflow, its database": reading("mlflow_db"),
    "Prometheus": fetching("prometheus"),
    "Alertmanager": fetching("alertmanager", "POST", "[]"),
    "MariaDB": connecting("mariadb"),
    "Slurm": submit_job,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
