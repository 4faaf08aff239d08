"""The edges of a fleet as its driver sees them: all at once, each one that fails a sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from conf.site_placement import peers_of_host
from serving.fleet.errors import FleetError
from serving.fleet.haproxy import edge
from serving.fleet.haproxy.edge import ServerState
from serving.fleet.inventory import Fleet, Host
from serving.fleet.routing import Routing, VersionCounters

Read = TypeVar("Read")


class FleetEdges:
    """The part of `FleetDriver` that is about edges, for one model."""

    fleet: Fleet
    model: str
    _edges: Mapping[str, edge.Edge]

    def read_routing(self) -> dict[str, Routing | str]:
        return self._at_all_edges(lambda at: at.routing(self.model))

    def edges_of(self, host: Host) -> tuple[str, ...]:
        return tuple(one.name for one in self.fleet.region_of(host).edges)

    def recipients(self) -> dict[str, frozenset[str]]:
        seen = self._at_all_edges(lambda at: at.all_states())
        return {
            name: frozenset(host for host, one in view.items() if one.admin == edge.READY)
            for name, view in seen.items()
            if not isinstance(view, str)
        }

    def shut_out(self, edge_name: str, name: str) -> None:
        self._edge(edge_name).set(name, edge.MAINT)

    def edge_states(self) -> dict[str, str]:
        seen = self._at_all_edges(lambda at: at.states())
        found: dict[str, str] = {}
        for host in self.fleet.hosts:
            views = [seen[name] for name in self.edges_of(host)]
            states = [view[host.name].admin for view in views
                      if not isinstance(view, str) and host.name in view]  # fmt: skip
            if len(states) == len(views):
                found[host.name] = _lowest(states)
        return found

    def route(self, edge: str, routing: Routing) -> None:
        self._edge(edge).route(self.model, routing)

    def counters(self) -> dict[int, VersionCounters]:
        return self._summed(lambda at: at.counters(self.model))

    def shadow_counters(self) -> dict[int, VersionCounters]:
        return self._summed(lambda at: at.shadow_counters(self.model))

    def _summed(
        self, read: Callable[[edge.Edge], dict[int, VersionCounters]]
    ) -> dict[int, VersionCounters]:
        found: dict[int, VersionCounters] = {}
        for counted in self._at_all_edges(read).values():
            if isinstance(counted, str):
                continue  # the edge that does not answer is named where it is to be changed
            for version, more in counted.items():
                sofar = found.get(version, VersionCounters(0, 0))
                found[version] = VersionCounters(
                    sofar.requests + more.requests, sofar.errors + more.errors
                )
        return found

    def peers_up(self, host: Host) -> int:
        """The fewest that any edge of the region sees, for any model of the host: each must have
        somebody to send to."""
        seen = [at.states() for at in self._edges_of(host)]
        return min(
            sum(states[name].takes_traffic for name in peers)
            for states in seen
            for peers in peers_of_host(self.fleet.placement, host.name, states)
        )

    def receives(self, host: Host) -> bool:
        return any(host.name in at.receivers(self.model) for at in self._edges.values())

    def _at_all_edges(self, read: Callable[[edge.Edge], Read]) -> dict[str, Read | str]:
        """The reading of each edge, all at the same time; a sentence for one that fails."""

        def read_one(name: str) -> Read | str:
            try:
                return read(self._edge(name))
            except FleetError as error:
                return str(error)

        names = [one.name for one in self.fleet.edges]
        with ThreadPoolExecutor(max_workers=min(len(names), 32)) as pool:
            return dict(zip(names, pool.map(read_one, names), strict=True))

    def _edge(self, name: str) -> edge.Edge:
        return self._edges[name]

    def _edges_of(self, host: Host) -> list[edge.Edge]:
        return [self._edge(name) for name in self.edges_of(host)]

    def _edges_elsewhere(self, host: Host) -> list[edge.Edge]:
        own = self.edges_of(host)
        return [at for name, at in self._edges.items() if name not in own]

    def _at_edges(self, host: Host) -> ServerState:
        """The host as all its edges see it: in traffic where it is at each, counts summed."""
        seen = [at.state(host.name) for at in self._edges_of(host)]
        return ServerState(
            _lowest([one.admin for one in seen]),
            all(one.up for one in seen),
            sum(one.sessions for one in seen),
            sum(one.queued for one in seen),
            sum(one.requests for one in seen),
            sum(one.errors for one in seen),
        )


def _lowest(states: list[str]) -> str:
    """The state at the edges that lets the fewest requests through."""
    return max(states, key=(edge.READY, edge.DRAIN, edge.MAINT).index)
