"""One model as the whole fleet serves it: production and its age, routing at each edge, traffic of
each version since the last rollout, latency."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from serving.fleet.report.prometheus import PrometheusClient, p99
from serving.fleet.report.read_rollouts import seconds_of
from serving.fleet.report.rollout_record import RolloutRecord
from serving.fleet.rollout.records import LedgerEntry
from serving.fleet.rollout.traffic import routing_text
from serving.fleet.routing import Routing, VersionCounters

LATENCY_WINDOW = "5m"


@dataclass(frozen=True)
class EdgeRouting:
    """The routing of a model at one edge; `text` is it for people, `problem` a sentence where it
    could not be read."""

    edge: str
    text: str
    version: int | None = None
    canary: int | None = None
    percent: float = 0.0
    problem: str = ""


@dataclass(frozen=True)
class VersionTraffic:
    """Requests to a version and the failed ones of them, over all edges."""

    version: int
    requests: int
    errors: int

    @property
    def error_rate(self) -> float | None:
        """The share that failed, None without a request."""
        return self.errors / self.requests if self.requests else None


@dataclass(frozen=True)
class ModelStatus:
    """One model. `since` and `age_s` are of its time in production, `who` and `rollout` brought it
    there; `traffic_since` is the rollout since whose end requests are counted, empty where they
    count since the edges started. `p99_s` is None where `p99_missing` says why.

    `instances` is the number of its instances on each host, by `fab scale` or else by its package;
    None where that is not known.
    """

    model: str
    production: int | None
    since: str
    age_s: float | None
    who: str
    rollout: str
    routing: tuple[EdgeRouting, ...]
    traffic: tuple[VersionTraffic, ...]
    traffic_since: str
    p99_s: float | None
    p99_missing: str
    instances: int | None = None


def model_status(
    model: str,
    entry: LedgerEntry | None,
    last: RolloutRecord | None,
    routing: Mapping[str, Routing | str],
    counters: Mapping[int, VersionCounters],
    latency: float | str,
    now: float,
    instances: int | None = None,
) -> ModelStatus:
    """Put together what was read; `last` is the newest rollout that has an end."""
    counted = last.counters[-1].versions if last and last.counters else {}
    traffic = []
    for version, sofar in sorted(counters.items()):
        one = sofar.since(counted.get(version, VersionCounters(0, 0)))
        traffic.append(VersionTraffic(version, one.requests, one.errors))
    return ModelStatus(
        model=model,
        production=entry.version if entry else None,
        since=entry.at if entry else "",
        age_s=max(now - seconds_of(entry.at), 0.0) if entry else None,
        who=entry.who if entry else "",
        rollout=entry.rollout if entry else "",
        routing=tuple(_edge(name, one) for name, one in sorted(routing.items())),
        traffic=tuple(traffic),
        traffic_since=last.rollout if last and counted else "",
        p99_s=latency if isinstance(latency, float) else None,
        p99_missing=latency if isinstance(latency, str) else "",
        instances=instances,
    )


def latency_now(prometheus: PrometheusClient, model: str) -> float | str:
    """Seconds of the 99th percentile now, or a sentence why there is none."""
    return prometheus.now(p99(model, LATENCY_WINDOW))


def routing_faults(found: ModelStatus) -> list[str]:
    """Sentences about edges that do not give the version in production, or cannot be read."""
    faults = []
    for one in found.routing:
        if one.problem:
            faults.append(f"{found.model} at the edge {one.edge}: {one.problem}")
        elif one.version is not None and one.version != found.production:
            faults.append(
                f"the edge {one.edge} gives {found.model}/{one.version}, production is "
                f"{found.production or 'nothing'}. Bring it back: fab heal --model {found.model}"
            )
        elif one.canary is not None:
            faults.append(
                f"the edge {one.edge} gives {one.percent:g}% to {found.model}/{one.canary}, and no "
                f"rollout is at work on it. Bring it back: fab heal --model {found.model}"
            )
    return faults


def _edge(name: str, found: Routing | str) -> EdgeRouting:
    if isinstance(found, str):
        return EdgeRouting(name, found, problem=found)
    return EdgeRouting(name, routing_text(found), found.version, found.canary, found.percent)
