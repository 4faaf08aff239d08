"""Several edges at once: a host is in the traffic of each, and leaves that of all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from serving.fleet.errors import FleetError
from serving.fleet.haproxy.edge import Edge

_AT_ONCE = 16


def set_at_all(edges: Iterable[Edge], host: str, state: str) -> dict[str, FleetError]:
    """Put `host` into `state` at every edge that answers; the failures by the edge's name."""
    return at_all(edges, lambda edge: edge.set(host, state))


def wait_idle_at_all(edges: Iterable[Edge], host: str, timeout_s: float) -> dict[str, FleetError]:
    """Return when `host` has nothing in flight at any; the failures by the edge's name."""
    return at_all(edges, lambda edge: edge.wait_idle(host, timeout_s))


def at_all(edges: Iterable[Edge], act: Callable[[Edge], None]) -> dict[str, FleetError]:
    """`act` on each edge, at the same time; one that fails holds up no other."""

    def attempt(edge: Edge) -> FleetError | None:
        try:
            act(edge)
        except FleetError as error:
            return error
        return None

    listed = list(edges)
    if not listed:
        return {}
    with ThreadPoolExecutor(max_workers=min(len(listed), _AT_ONCE)) as pool:
        results = zip(listed, pool.map(attempt, listed), strict=True)
        return {edge.name: error for edge, error in results if error is not None}
