"""Requests at simulated edges: the versions they are given, and those that fail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from serving.fleet.routing import Routing, VersionCounters
from serving.fleet.simulation.machines import SimulatedEdge, SimulatedHost

ROUND = 100
"""Requests that each edge gives out between two reads of its counters."""


def shares(routing: Routing) -> dict[int, float]:
    """The percent of requests without a version that each version is given; none by the host's own
    choice."""
    if routing.version is None:
        return {}
    found = {routing.version: 100 - routing.percent}
    if routing.canary is not None:
        found[routing.canary] = found.get(routing.canary, 0) + routing.percent
    return {version: percent for version, percent in found.items() if percent > 0}


def serve_round(
    edge: SimulatedEdge, taking: Sequence[SimulatedHost], failing: Mapping[int, float]
) -> None:
    """One round of requests to the hosts in traffic, counted at the edge.

    `failing` is the share of its requests that a version fails wherever it runs.
    """
    for version, percent in shares(edge.routing).items():
        requests = round(ROUND * percent / 100)
        right = sum(host.answers(version) for host in taking)
        lost = max(1 - right / len(taking) if taking else 1.0, failing.get(version, 0.0))
        edge.requests[version] = edge.requests.get(version, 0) + requests
        edge.errors[version] = edge.errors.get(version, 0) + round(requests * lost)


def summed_counters(edges: Iterable[SimulatedEdge]) -> dict[int, VersionCounters]:
    """The counts of all edges by version."""
    found: dict[int, VersionCounters] = {}
    for edge in edges:
        for version, requests in edge.requests.items():
            sofar = found.get(version, VersionCounters(0, 0))
            errors = sofar.errors + edge.errors.get(version, 0)
            found[version] = VersionCounters(sofar.requests + requests, errors)
    return found
