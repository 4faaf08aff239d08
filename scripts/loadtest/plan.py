"""The plan of a load test (`LoadPlan`) and its outcome (`Result`)."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conf import compose
from conf.site_schema import edge_region, site_config
from scripts.loadtest.golden_requests import LoadRequest, read_requests

MAX_RATE = 1_000.0
MAX_REQUESTS = 500_000
MAX_CONCURRENCY = 128


class TrafficError(ValueError):
    """The plan cannot be run; the message says which part and what to do."""


@dataclass(frozen=True)
class LoadPlan:
    """Requests, endpoints, rate and duration of a load test. Raises `TrafficError`."""

    model: str
    endpoints: Mapping[str, tuple[str, int]]
    """Address and port of the edge, by region; requests go to each in turn."""
    examples: Sequence[LoadRequest]
    rate: float = 20.0
    """Requests a second, over all regions."""
    duration_s: float = 30.0
    concurrency: int = 16
    """Requests in flight at most, each on a connection of its own."""
    new_connection_every: int = 5
    """Every n-th request opens a connection and closes it; the others keep theirs alive."""
    timeout_s: float = 10.0
    grpc: bool = False
    """By gRPC instead of HTTP; the ports are those of the edges' gRPC."""
    allow_remote: bool = False
    """Addresses off this machine are refused unless this says otherwise: it is a load generator."""

    def __post_init__(self) -> None:
        if not self.endpoints or not self.examples:
            raise TrafficError(
                f"nothing to send for {self.model}: no region or no example is given"
            )
        if not 0 < self.rate <= MAX_RATE:
            raise TrafficError(
                f"rate {self.rate}: choose above 0 and at most {MAX_RATE:g} a second"
            )
        if self.duration_s <= 0 or self.requests > MAX_REQUESTS:
            raise TrafficError(
                f"{self.rate:g}/s for {self.duration_s:g} s: choose 1 to {MAX_REQUESTS} requests"
            )
        if not 1 <= self.concurrency <= MAX_CONCURRENCY:
            raise TrafficError(f"concurrency {self.concurrency}: choose 1 to {MAX_CONCURRENCY}")
        if self.new_connection_every < 1 or self.timeout_s <= 0:
            raise TrafficError("new_connection_every must be at least 1, timeout_s above 0")
        for region, (address, _) in self.endpoints.items():
            if not (self.allow_remote or _is_loopback(address)):
                raise TrafficError(
                    f"the edge of {region} is {address}, not on this machine: add --allow-remote "
                    "if load on it is really meant"
                )

    @property
    def requests(self) -> int:
        return max(1, round(self.rate * self.duration_s))


@dataclass(frozen=True)
class Result:
    """The clients' view. `sent == ok + failed`; latencies in milliseconds."""

    model: str
    seconds: float
    planned: int
    sent: int
    ok: int
    failed: int
    wrong: int
    """Of the failed: answered with 200 and other numbers than the golden ones."""
    checked: int
    """Of the ok: compared with the golden outputs of the version that answered."""
    failures: dict[str, int]
    versions: dict[str, int]
    regions: dict[str, dict[str, int]]
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    examples_of_failure: list[dict[str, str]]

    def line(self) -> str:
        """One line for a person."""
        versions = ", ".join(f"v{v}: {n}" for v, n in sorted(self.versions.items())) or "none"
        spread = (
            "" if self.p50_ms is None else f", p50 {self.p50_ms:.1f} ms, p99 {self.p99_ms:.1f} ms"
        )
        reasons = "".join(f"; {n} x {why}" for why, n in sorted(self.failures.items()))
        return (
            f"{self.model}: {self.sent} sent in {self.seconds:.1f} s, {self.ok} ok "
            f"({self.checked} checked), {self.failed} failed{spread}; "
            f"answered by {versions}{reasons}"
        )


def plan_for(model: str, regions: Sequence[str] = (), **settings: Any) -> LoadPlan:
    """The plan for a model of the configured site; every region where none is named.

    `settings` are fields of `LoadPlan`. Raises `TrafficError`, `GoldenError` or `ConfigError`.
    """
    site = site_config(compose("site"))
    served = dict.fromkeys(edge_region(name, edge) for name, edge in site.edges.items())
    unknown = sorted(set(regions) - set(served))
    if unknown:
        raise TrafficError(
            f"there is no edge in {', '.join(unknown)}; choose from {', '.join(served)}"
        )
    port = "grpc_port" if settings.get("grpc") else "http_port"
    endpoints = {
        name: (edge.address, int(getattr(edge, port)))
        for name, edge in site.edges.items()
        if not regions or edge_region(name, edge) in regions
    }
    return LoadPlan(model, endpoints, read_requests(site.paths.store, model), **settings)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
