"""Probes: each has a daemon do a piece of its real work, with a time-out."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from conf.credentials import HttpAccount
from scripts.box.program import Probe

TIMEOUT_S = 4.0


def http_ok(url: str, account: Callable[[], HttpAccount | None] = lambda: None) -> Probe:
    """Healthy when GET `url` answers 200, to `account()` where there is one."""
    parts = urlsplit(url)

    def probe() -> str:
        known = account()
        headers = {"Authorization": known.header} if known else {}
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", target, headers=headers)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return f"GET {url}: {error}"
        finally:
            connection.close()
        return "" if status == 200 else f"GET {url}: HTTP {status}"

    return probe


def greets(address: str, port: int, greeting: bytes) -> Probe:
    """Healthy when `address:port` sends `greeting` to whoever connects."""

    def probe() -> str:
        try:
            with socket.create_connection((address, port), timeout=TIMEOUT_S) as link:
                received = link.recv(len(greeting))
        except OSError as error:
            return f"{address}:{port}: {error}"
        return "" if received == greeting else f"{address}:{port} greets with {received!r}"

    return probe


def sends_a_line(address: str, port: int) -> Probe:
    """Healthy when `address:port` sends a line of text to whoever connects."""

    def probe() -> str:
        try:
            with socket.create_connection((address, port), timeout=TIMEOUT_S) as link:
                received = link.makefile("rb").readline(200)
        except OSError as error:
            return f"{address}:{port}: {error}"
        return "" if received.endswith(b"\n") else f"{address}:{port} sends {received!r}"

    return probe


def listens(address: str, port: int) -> Probe:
    """Healthy when `address:port` takes a connection."""

    def probe() -> str:
        try:
            socket.create_connection((address, port), timeout=TIMEOUT_S).close()
        except OSError as error:
            return f"{address}:{port}: {error}"
        return ""

    return probe


def is_socket(path: Path) -> Probe:
    """Healthy when a unix socket stands at `path`; nobody connects to it."""
    return lambda: "" if path.is_socket() else f"{path}: there is no socket"


def succeeds(argv: Sequence[str], expect: str = "", env: Mapping[str, str] | None = None) -> Probe:
    """Healthy when the command exits 0 and its output contains `expect`."""
    return output_fault(
        argv, lambda text: "" if expect in text else f"{argv[0]} printed {text!r}", env
    )


def output_fault(
    argv: Sequence[str], fault: Callable[[str], str], env: Mapping[str, str] | None = None
) -> Probe:
    """Healthy when the command exits 0 and `fault` returns "" for its stripped output."""

    def probe() -> str:
        try:
            done = subprocess.run(
                argv, env={**os.environ, **(env or {})}, capture_output=True, text=True,
                timeout=TIMEOUT_S * 2, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"{argv[0]}: no answer in {TIMEOUT_S * 2:.0f} s"
        except OSError as error:
            return f"{argv[0]}: {error}"
        if done.returncode != 0:
            output = " ".join((done.stdout + done.stderr).split())
            return f"{argv[0]}: {output[-200:] or f'exit {done.returncode}'}"
        return fault(done.stdout.strip())

    return probe
