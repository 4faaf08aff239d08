"""The requests of a controller on the edge's machine: HAProxy's sockets, and two folders."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from serving.artifact.durable import replace_file
from serving.edge_host.requests import EdgeHostRefusal, EdgeRequest

_TIMEOUT_S = 10
_RELOAD_S = 30
"""Within which HAProxy has taken up a config, or given it up."""
_CHECK_S = 60


@dataclass(frozen=True)
class EdgeHome:
    """Places of one HAProxy on this machine, of root's etc/edge.json.

    `socket` is its runtime socket, `master` that of its master process, by which it is reloaded.
    `config` lies in a folder that this account may write to.
    """

    haproxy: str
    config: Path
    state: Path
    socket: Path
    master: Path


def read_edge_home(path: Path) -> EdgeHome:
    """The settings in a file. Raises OSError, KeyError or ValueError."""
    content = json.loads(path.read_text())
    places = {key: Path(content[key]) for key in ("config", "state", "socket", "master")}
    return EdgeHome(haproxy=content["haproxy"], **places)


def carry_out_at_edge(home: EdgeHome, request: EdgeRequest) -> str:
    """Do what was asked; the answer as text. Raises EdgeHostRefusal or OSError."""
    if request.do == "query":
        return _query(home.socket, request.command)
    if request.do == "read":
        path = home.state / request.name
        return path.read_text() if path.exists() else ""
    if request.do == "write":
        replace_file(home.state / request.name, request.text)
        return ""
    if request.do == "config":
        return home.config.read_text()
    return _install(home, request.text)


def _install(home: EdgeHome, text: str) -> str:
    """Check, replace and reload; the config that was there is put back when HAProxy does not
    come up with the new one."""
    before = home.config.read_text()
    checked = home.config.with_name(f"{home.config.name}.checked")
    replace_file(checked, text)
    try:
        done = subprocess.run(
            [home.haproxy, "-c", "-f", str(checked)],
            capture_output=True, text=True, errors="replace", timeout=_CHECK_S,
        )  # fmt: skip
    finally:
        checked.unlink(missing_ok=True)
    if done.returncode != 0:
        alerts = [line for line in done.stderr.splitlines() if "[ALERT]" in line]
        raise EdgeHostRefusal(f"HAProxy refuses the config: {' '.join(alerts or ['?'])[:500]}")
    replace_file(home.config, text)
    if not _reloads(home):
        replace_file(home.config, before)
        _reloads(home)
        raise EdgeHostRefusal("HAProxy did not come up with the config; it has the one before")
    return ""


def _reloads(home: EdgeHome) -> bool:
    """Reload; True when HAProxy came up with another worker.

    A master that takes up a config answers nobody, for seconds where an address cannot be bound,
    and loses a reload that is ordered meanwhile (measured, HAProxy 2.6). So it is asked before, and
    again until it answers: the reload has ended then, one way or the other.
    """
    worker = _worker(home)
    with suppress(ConnectionError):  # the master re-executes itself: its connections end
        _query(home.master, "reload")
    return bool(worker) and _worker(home) not in ("", worker)


def _worker(home: EdgeHome) -> str:
    """The process id of the worker that the master has, once it answers; "" for none."""
    deadline = time.monotonic() + _RELOAD_S
    while True:
        try:
            lines = _query(home.master, "show proc").splitlines()
            break
        except OSError:
            if time.monotonic() > deadline:
                return ""
            time.sleep(0.05)
    after = lines[lines.index("# workers") + 1 :] if "# workers" in lines else []
    return after[0].split()[0] if after and after[0][:1].isdigit() else ""


def _query(path: Path, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_TIMEOUT_S)
        connection.connect(str(path))
        connection.sendall(command.encode() + b"\n")
        connection.shutdown(socket.SHUT_WR)
        chunks = []
        while chunk := connection.recv(65536):
            chunks.append(chunk)
    return b"".join(chunks).decode()
