"""One HAProxy at run time: the state of each host, the routing of versions, and what it counted.

Commands are pure strings; an `EdgeLink` carries them. What was set is read back from HAProxy, and
lies in its state folder too, so that it holds after a restart.
"""

from __future__ import annotations

import csv
import time
from dataclasses import dataclass

from serving.fleet.haproxy.edge_config import BACKEND
from serving.fleet.haproxy.edge_link import EdgeError, EdgeLink, LocalEdge
from serving.fleet.haproxy.version_map import (
    COUNTERS,
    ROUTES,
    checked_model,
    map_text,
    map_value,
    parse_counters,
    parse_map,
    parse_shown,
)
from serving.fleet.inventory import FleetEdge
from serving.fleet.routing import Routing, VersionCounters

READY, DRAIN, MAINT = "ready", "drain", "maint"

# Bits of srv_admin_state in `show servers state` (HAProxy management guide, section 9.3).
_ANY_MAINT, _ANY_DRAIN = 0x01 | 0x02 | 0x04 | 0x20 | 0x40, 0x08 | 0x10
_RUNNING = 2


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


def edge_of(edge: FleetEdge) -> Edge:
    """The edge at run time; nothing is opened before it is used."""
    return Edge(edge.name, LocalEdge(edge.name, edge.socket, edge.state))


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
    """One HAProxy, by the name of the edge, and the link to it."""

    name: str
    link: EdgeLink

    def send(self, command: str) -> None:
        """Send a command that changes something. Raises EdgeError if HAProxy answers anything."""
        answer = self.query(command).strip()
        if answer:
            raise EdgeError(f"the edge {self.name} refused `{command}`: {answer}")

    def query(self, command: str) -> str:
        """Send a command that reads and return its answer. Raises EdgeUnreachable."""
        return self.link.query(command)

    def routing(self, model: str) -> Routing:
        """The versions that HAProxy gives to requests for `model` now."""
        return self._routes().get(model, Routing())

    def route(self, model: str, routing: Routing) -> None:
        """Give requests for `model` these versions from now on, and after a restart.

        The file is written first: where HAProxy then cannot be reached, it starts with it.
        Raises EdgeError, also when HAProxy does not have it so afterwards.
        """
        wanted = map_value(routing)
        self._persist_route(model, routing)
        current = self._routes()
        where = f"{self._map_path()} {checked_model(model)}"
        if routing == Routing():
            if model in current:
                self.send(f"del map {where}")
        elif model not in current:
            self.send(f"add map {where} {wanted}")
        elif map_value(current[model]) != wanted:
            self.send(f"set map {where} {wanted}")
        now = map_value(self.routing(model))
        if now != wanted:
            raise EdgeError(
                f"the edge {self.name} was told to route {model} {wanted}, but has {now}."
            )

    def counters(self, model: str) -> dict[int, VersionCounters]:
        """Requests that this edge gave to each version since HAProxy started."""
        return parse_counters(self.query(f"show table {COUNTERS}"), model)

    def states(self) -> dict[str, ServerState]:
        """Every host of the region as HAProxy sees it now."""
        return parse_states(self.query(f"show servers state {BACKEND}"), self.query("show stat"))

    def state(self, host: str) -> ServerState:
        """One host. Raises EdgeError when the edge has no such server."""
        states = self.states()
        if host not in states:
            known = ", ".join(states) or "none"
            raise EdgeError(
                f"the edge {self.name} has no server {host!r} (it has {known}). Bring its "
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
            raise EdgeError(f"the edge {self.name} was set to {state} for {host}, but it is {now}.")

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
                raise EdgeError(f"the edge {self.name} has not seen {host} up in {timeout_s:g} s.")
            time.sleep(0.05)

    def _routes(self) -> dict[str, Routing]:
        path = self._map_path()
        answer = self.query(f"show map {path}")
        if answer.startswith("Unknown map"):
            raise EdgeError(
                f"the edge {self.name} does not route versions: it has no map {path}. Bring its "
                "config up to date from conf/site and reload it."
            )
        try:
            return parse_shown(answer)
        except ValueError as error:
            raise EdgeError(f"the edge {self.name}: its map {path} is damaged: {error}.") from error

    def _persist_route(self, model: str, routing: Routing) -> None:
        try:
            routes = parse_map(self.link.read_state(ROUTES))
        except ValueError:
            routes = self._routes()  # a damaged file must not hold up a rollback
        self.link.write_state(ROUTES, map_text({**routes, model: routing}))

    def _map_path(self) -> str:
        return str(self.link.state / ROUTES)


def _count(row: dict[str, str], column: str) -> int:
    return int(row.get(column) or 0)
