"""Probes: each asks a daemon for a piece of its real work, with a time-out."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

from scripts.box.program import Probe

TIMEOUT_S = 4.0


def http_ok(url: str) -> Probe:
    """Healthy when GET `url` answers 200."""
    parts = urlsplit(url)

    def probe() -> str:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", parts.path or "/")
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return f"GET {url}: {error}"
        finally:
            connection.close()
        return "" if status == 200 else f"GET {url}: HTTP {status}"

    return probe


def greets(address: str, port: int, greeting: bytes) -> Probe:
    """Healthy when a connection to `address:port` is answered with `greeting` unasked."""

    def probe() -> str:
        try:
            with socket.create_connection((address, port), timeout=TIMEOUT_S) as link:
                heard = link.recv(len(greeting))
        except OSError as error:
            return f"{address}:{port}: {error}"
        return "" if heard == greeting else f"{address}:{port} greets with {heard!r}"

    return probe


def succeeds(argv: Sequence[str], expect: str = "", env: Mapping[str, str] | None = None) -> Probe:
    """Healthy when the command exits 0 and its output contains `expect`."""
    return answers(argv, lambda said: "" if expect in said else f"{argv[0]} says {said!r}", env)


def answers(
    argv: Sequence[str], judge: Callable[[str], str], env: Mapping[str, str] | None = None
) -> Probe:
    """Healthy when the command exits 0 and `judge` finds no fault with its stripped output."""

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
            said = " ".join((done.stdout + done.stderr).split())
            return f"{argv[0]}: {said[-200:] or f'exit {done.returncode}'}"
        return judge(done.stdout.strip())

    return probe
