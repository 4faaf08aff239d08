"""Failed requests and latency while a rollout went on: by Prometheus, else by the journal."""

from __future__ import annotations

from dataclasses import dataclass

from serving.fleet.report.prometheus import (
    PrometheusClient,
    TimeSeries,
    error_rate,
    failures_in,
    p99,
    requests_in,
)
from serving.fleet.report.rollout_record import RolloutRecord
from serving.fleet.report.way_back import total_traffic
from serving.fleet.routing import VersionCounters

_POINTS, _WINDOW = 240, "1m"
_MARGIN_S = 30.0


@dataclass(frozen=True)
class RolloutMeasures:
    """Shares of failed requests, seconds of the 99th percentile, and all requests with the failed
    ones; `traffic` is None where nothing recorded it, `source` names the recorder of it."""

    errors: TimeSeries
    p99_s: TimeSeries
    traffic: VersionCounters | None
    source: str


def measures(record: RolloutRecord, prometheus: PrometheusClient) -> RolloutMeasures:
    """Everything that was measured while `record` went on."""
    end = record.began + record.seconds
    step_s = max(record.seconds / _POINTS, 1.0)
    errors = prometheus.over(error_rate(record.model, _WINDOW), record.began, end, step_s)
    latency = prometheus.over(p99(record.model, _WINDOW), record.began, end, step_s)
    if not errors.points:
        counted = journalled_errors(record)
        errors = TimeSeries(counted, "" if counted else errors.missing)
    traffic, source = total_traffic(record), "counted at the edges"
    if traffic is None:
        traffic, source = _counted_by_prometheus(record, prometheus), "estimated by Prometheus"
    return RolloutMeasures(errors, latency, traffic, source if traffic else "")


def journalled_errors(record: RolloutRecord) -> tuple[tuple[float, float], ...]:
    """The share of failed requests between each two counters of the journal."""
    found: list[tuple[float, float]] = []
    for first, second in zip(record.counters, record.counters[1:], strict=False):
        counts = [
            now.since(first.versions.get(version, VersionCounters(0, 0)))
            for version, now in second.versions.items()
        ]
        requests = sum(one.requests for one in counts)
        if requests:
            share = sum(one.errors for one in counts) / requests
            found += [(first.at, share), (second.at, share)]
    return tuple(found)


def _counted_by_prometheus(
    record: RolloutRecord, prometheus: PrometheusClient
) -> VersionCounters | None:
    """Increases from the start to a scrape after the end; they are extrapolated, so about right."""
    end = record.began + record.seconds + _MARGIN_S
    window = f"{int(record.seconds + _MARGIN_S) + 1}s"
    requests = prometheus.now(requests_in(record.model, window), end)
    failures = prometheus.now(failures_in(record.model, window), end)
    if isinstance(requests, str) or isinstance(failures, str):
        return None
    return VersionCounters(round(requests), round(failures))
