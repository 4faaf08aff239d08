"""Taken ports: the check before a daemon is started, and the process that holds one."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable

import psutil

from scripts.box.program import Port, Refusal


def refuse_taken(ports: Iterable[Port]) -> None:
    """Raises Refusal naming every taken port, its holder and the key to change."""
    taken = [taken_line(port) for port in ports if not is_free(port)]
    if taken:
        raise Refusal("; ".join(taken) + ". Stop the holder or change the key, then run it again.")


def is_free(port: Port) -> bool:
    """True where a daemon could listen on `port` now. Raises Refusal for an address not ours."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the daemons do: a connection that lingers from a previous run is no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((port.address, port.number))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise Refusal(f"cannot listen on {port} ({port.key}): {error.strerror}.") from error
    return True


def taken_line(port: Port) -> str:
    """One clause about a taken port, as in "port 127.0.0.1:19090 (site.ports.prometheus) is
    taken by pid 4711 (python3 -m http.server)"."""
    return f"port {port} ({port.key} in conf/site/box.yaml) is taken by {_holder(port)}"


def _holder(port: Port) -> str:
    for link in psutil.net_connections(kind="tcp"):
        if link.status != psutil.CONN_LISTEN or link.laddr.port != port.number or not link.pid:
            continue
        if link.laddr.ip in (port.address, "0.0.0.0", "::"):
            try:
                command = " ".join(psutil.Process(link.pid).cmdline())
            except psutil.Error:
                command = "gone by now"
            return f"pid {link.pid} ({command[:80]})"
    return "a process that cannot be seen from here"
