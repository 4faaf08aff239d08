"""A region's HAProxy at run time: the state of each host at the edge, and its open requests.

Commands are pure strings; `Edge.query` is the only place that touches the socket. States that were
set are lost when HAProxy restarts, so they are read back from it and never remembered here.
"""

from __future__ import annotations

import csv
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from serving.fleet.errors import FleetError, Unreachable
from serving.fleet.haproxy.edge_config import BACKEND

READY, DRAIN, MAINT = "ready", "drain", "maint"

# Bits of srv_admin_state in `show servers state` (HAProxy management guide, section 9.3).
_ANY_MAINT, _ANY_DRAIN = 0x01 | 0x02 | 0x04 | 0x20 | 0x40, 0x08 | 0x10
_RUNNING = 2


class EdgeError(FleetError):
    """The edge refused a command, or did not come to the wanted state."""


class EdgeUnreachable(EdgeError, Unreachable):
    """The edge does not answer on its runtime socket."""


@dataclass(frozen=True)
class ServerState:
    """One host as its edge sees it. `admin` is the state that was set, `up` the verdict of
    the health checks.

    `sessions` are requests in flight, `queued` those that wait for this host; `requests` and
    `errors` count since HAProxy started (errors: 5xx answers, failed connections and responses).
    """

    admin: str
    up: bool
    sessions: int
    queued: int
    requests: int
    errors: int

    @property
    def takes_traffic(self) -> bool:
        """True when new requests may come to it now."""
        return self.up and self.admin == READY


def set_state(host: str, state: str) -> str:
    """The runtime command that puts `host` into `ready`, `drain` or `maint`.

    drain: finish what is in flight, get nothing new. maint: also drop idle connections, which
    would otherwise keep a stopping Triton waiting for its whole exit time-out.
    """
    if state not in (READY, DRAIN, MAINT):
        raise ValueError(f"unknown edge state {state!r}")
    return f"set server {BACKEND}/{host} state {state}"


def parse_states(servers_state: str, stat: str) -> dict[str, ServerState]:
    """Join the answers to `show servers state` and `show stat` for our backend, by host name."""
    found: dict[str, ServerState] = {}
    rows = {
        row["svname"]: row
        for row in csv.DictReader(stat.removeprefix("# ").splitlines())
        if row["pxname"] == BACKEND
    }
    for line in servers_state.splitlines():
        fields = line.split()
        if len(fields) < 7 or fields[0].startswith("#") or fields[1] != BACKEND:
            continue
        name, operational, admin = fields[3], int(fields[5]), int(fields[6])
        row = rows.get(name, {})
        found[name] = ServerState(
            admin=MAINT if admin & _ANY_MAINT else DRAIN if admin & _ANY_DRAIN else READY,
            up=operational == _RUNNING,
            sessions=_count(row, "scur"),
            queued=_count(row, "qcur"),
            requests=_count(row, "stot"),
            errors=_count(row, "hrsp_5xx") + _count(row, "econ") + _count(row, "eresp"),
        )
    return found


@dataclass(frozen=True)
class Edge:
    """The runtime socket of one region's HAProxy."""

    region: str
    path: Path

    def send(self, command: str) -> None:
        """Send a command that changes something. Raises EdgeError if HAProxy answers anything."""
        answer = self.query(command).strip()
        if answer:
            raise EdgeError(f"the edge of {self.region} refused `{command}`: {answer}")

    def query(self, command: str) -> str:
        """Send a command that reads and return its answer. Raises EdgeUnreachable."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            try:
                connection.connect(str(self.path))
                connection.sendall(command.encode() + b"\n")
                chunks = []
                while chunk := connection.recv(65536):
                    chunks.append(chunk)
            except OSError as error:
                raise EdgeUnreachable(
                    f"the edge of {self.region} does not answer on {self.path}: {error.strerror}. "
                    "Is HAProxy up, and may this user write to its socket?"
                ) from error
        return b"".join(chunks).decode()

    def states(self) -> dict[str, ServerState]:
        """Every host of the region as HAProxy sees it now."""
        return parse_states(self.query(f"show servers state {BACKEND}"), self.query("show stat"))

    def state(self, host: str) -> ServerState:
        """One host. Raises EdgeError when the edge has no such server."""
        states = self.states()
        if host not in states:
            known = ", ".join(states) or "none"
            raise EdgeError(
                f"the edge of {self.region} has no server {host!r} (it has {known}). Bring its "
                "config up to date from conf/site and reload it."
            )
        return states[host]

    def set(self, host: str, state: str) -> None:
        """Put `host` into `state` and read it back. Raises EdgeError if it is not so."""
        if self.state(host).admin == state:
            return
        if state == DRAIN and self.state(host).admin == MAINT:
            # From maintenance HAProxy goes to drain only by way of ready, which would let traffic
            # in for a moment; a host in maintenance is idle already.
            return
        self.send(set_state(host, state))
        now = self.state(host).admin
        if now != state:
            raise EdgeError(
                f"the edge of {self.region} was set to {state} for {host}, but it is {now}."
            )

    def wait_idle(self, host: str, timeout_s: float) -> None:
        """Return when `host` has nothing in flight. Raises EdgeError after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while (state := self.state(host)).sessions or state.queued:
            if time.monotonic() > deadline:
                raise EdgeError(
                    f"{host} still had {state.sessions} requests in flight {timeout_s:g} s after "
                    "it was drained (rollout.drain_timeout_s)."
                )
            time.sleep(0.02)

    def wait_up(self, host: str, timeout_s: float) -> None:
        """Return when the health checks take `host` for up. Raises EdgeError after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not self.state(host).up:
            if time.monotonic() > deadline:
                raise EdgeError(
                    f"the edge of {self.region} has not seen {host} up in {timeout_s:g} s."
                )
            time.sleep(0.05)


def _count(row: dict[str, str], column: str) -> int:
    return int(row.get(column) or 0)
