"""One HAProxy at run time: the state of each host, the routing of versions, and what it counted.

Commands are pure strings; an `EdgeLink` carries them. What was set is read back from HAProxy, and
lies in its state folder too, so that it holds after a restart.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from serving.edge_host.names import BACKEND, COUNTERS, LAST, ROUTES, SHADOW_COUNTERS, STATES
from serving.fleet.haproxy.edge_link import EdgeError, EdgeLink, EdgeUnreachable
from serving.fleet.haproxy.server_states import (
    DRAIN,
    MAINT,
    READY,
    ServerState,
    parse_kept,
    parse_receivers,
    parse_states,
    states_file,
)
from serving.fleet.haproxy.version_map import (
    checked_model,
    map_text,
    map_value,
    parse_counters,
    parse_map,
    parse_shown,
)
from serving.fleet.routing import Routing, VersionCounters

__all__ = ["DRAIN", "MAINT", "READY", "Edge", "EdgeError", "EdgeUnreachable", "ServerState",
           "set_state"]  # fmt: skip


def set_state(host: str, state: str, backend: str = BACKEND) -> str:
    """The runtime command that puts `host` into `ready`, `drain` or `maint`.

    drain: finish what is in flight, get nothing new. maint: also drop idle connections, which
    would otherwise keep a stopping Triton waiting for its whole exit time-out. A host's agent can
    give HAProxy the words `ready` and `maint` too: it counts only while the host is in traffic.
    """
    if state not in (READY, DRAIN, MAINT):
        raise ValueError(f"unknown edge state {state!r}")
    server = f"{backend}/{host}"
    if state == READY:
        # Also where the agent said `down` and died: the host was proven before it is given back.
        return (
            f"enable agent {server}; set server {server} agent up; set server {server} state ready"
        )
    return f"disable agent {server}; set server {server} state {state}"


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

    def close(self) -> None:
        """End what is open to the edge; it is opened again when it is used."""
        self.link.close()

    def routing(self, model: str) -> Routing:
        """The versions that HAProxy gives to requests for `model` now."""
        return self.routes().get(model, Routing())

    def route(self, model: str, routing: Routing) -> None:
        """Give requests for `model` these versions from now on, and after a restart.

        The file is written first: where HAProxy then cannot be reached, it starts with it.
        Raises EdgeError, also when HAProxy does not have it so afterwards.
        """
        wanted = map_value(routing)
        try:
            filed = self._filed_routes()
        except EdgeError:
            filed = self.routes()  # a damaged file must not hold up a rollback
        self.link.write_state(ROUTES, map_text({**filed, model: routing}))
        self._set_route(model, routing, self.routes())
        now = map_value(self.routing(model))
        if now != wanted:
            raise EdgeError(
                f"the edge {self.name} was set to route {model} {wanted}, but has {now}."
            )

    def counters(self, model: str) -> dict[int, VersionCounters]:
        """Requests that this edge gave to each version since HAProxy started."""
        return parse_counters(self.query(f"show table {COUNTERS}"), model)

    def shadow_counters(self, model: str) -> dict[int, VersionCounters]:
        """As `counters`, of the copies that went to each shadow."""
        return parse_counters(self.query(f"show table {SHADOW_COUNTERS}"), model)

    def states(self) -> dict[str, ServerState]:
        """Every host of its own region as HAProxy sees it now."""
        return {name: one for name, one in self.all_states().items() if not one.backup}

    def all_states(self) -> dict[str, ServerState]:
        """As `states`, with the hosts of other regions that stand in for the own ones."""
        return parse_states(self.query("show servers state"), self.query("show stat"), BACKEND)

    def receivers(self, model: str) -> frozenset[str]:
        """The hosts that requests for `model` may go to by the config that HAProxy runs with."""
        return parse_receivers(self.query("show servers state"), BACKEND, model)

    def state(self, host: str) -> ServerState:
        """One host. Raises EdgeError when the edge has no such server."""
        states = self.all_states()
        if host not in states:
            known = ", ".join(states) or "none"
            raise EdgeError(
                f"the edge {self.name} has no server {host!r} (it has {known}). Bring its "
                "config up to date from conf/site and reload it."
            )
        return states[host]

    def set(self, host: str, state: str) -> None:
        """Put `host` into `state`, now and after a restart, and read it back.

        Raises EdgeError if it is not so.
        """
        before = self.state(host)
        # From maintenance HAProxy goes to drain only by way of ready, which would let traffic
        # in for a moment; a host in maintenance is idle already.
        if before.admin != state and (before.admin, state) != (MAINT, DRAIN):
            self._send_state(host, state, before.backup)
            now = self.state(host).admin
            if now != state:
                raise EdgeError(
                    f"the edge {self.name} was set to {state} for {host}, but it is {now}."
                )
        self._persist_states()

    def reassert(self) -> list[str]:
        """Give HAProxy what its state folder has, where it differs; a sentence for each.

        It starts with the folder's content by itself: a difference is left by a change that was
        cut between the file and HAProxy, or by a hand.
        """
        mended = []
        wanted, current = self._filed_routes(), self.routes()
        for model in sorted(wanted.keys() | current.keys()):
            routing = wanted.get(model, Routing())
            if current.get(model, Routing()) != routing:
                self._set_route(model, routing, current)
                mended.append(f"{self.name}: {model} is routed {map_value(routing)} again.")
        kept = parse_kept(self.link.read_state(STATES), BACKEND)
        states = self.all_states()
        for host in sorted(kept.keys() & states.keys()):
            if states[host].admin == READY:
                self._send_state(host, kept[host], states[host].backup)
                mended.append(f"{self.name}: {host} is in {kept[host]} again.")
        return mended

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

    def _send_state(self, host: str, state: str, backup: bool) -> None:
        backends = (BACKEND,) if backup else (BACKEND, LAST)
        self.send("; ".join(set_state(host, state, backend) for backend in backends))

    def _persist_states(self) -> None:
        text = states_file(self.query("show servers state"))
        if text != self.link.read_state(STATES):
            self.link.write_state(STATES, text)

    def _set_route(self, model: str, routing: Routing, current: dict[str, Routing]) -> None:
        where = f"{self._map_path()} {checked_model(model)}"
        if routing == Routing():
            if model in current:
                self.send(f"del map {where}")
        elif model not in current:
            self.send(f"add map {where} {map_value(routing)}")
        elif map_value(current[model]) != map_value(routing):
            self.send(f"set map {where} {map_value(routing)}")

    def routes(self) -> dict[str, Routing]:
        """The routing of every model that HAProxy routes now. Raises EdgeError."""
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

    def _filed_routes(self) -> dict[str, Routing]:
        try:
            return parse_map(self.link.read_state(ROUTES))
        except ValueError as error:
            raise EdgeError(
                f"the edge {self.name}: its file {self._map_path()} is damaged: {error}. The next "
                "rollout writes it anew."
            ) from error

    def _map_path(self) -> str:
        return str(self.link.state / ROUTES)
