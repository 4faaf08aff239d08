"""Requests by the version that the edge gave them: what a canary is judged by in Prometheus.

Of each model the last few versions have series; those of an older one end with it, so that a year
of rollouts makes no more of them than a week.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram

KEPT_VERSIONS = 4
"""Of a model in a region: the one in production, a canary, and those before."""


class VersionSeries:
    """Counts and latencies by region, model and version."""

    def __init__(self, edges_s: Sequence[float], registry: CollectorRegistry) -> None:
        labels = ("region", "model", "version")
        self.seconds = Histogram(
            "lockgate_version_request_duration_seconds",
            "As lockgate_request_duration_seconds, of requests that were given this version.",
            labels,
            buckets=tuple(edges_s),
            registry=registry,
        )
        self.failures = Counter(
            "lockgate_version_request_failures",
            "Requests that were given this version and that the service failed.",
            labels,
            registry=registry,
        )
        self._kept: dict[tuple[str, str], list[str]] = {}
        self._lock = threading.Lock()

    def count(self, region: str, model: str, version: str, seconds: float, failed: bool) -> None:
        """Count one request of a model that is known, with the digits that its edge logged."""
        with self._lock:
            self._keep(region, model, version)
            if failed:
                self.failures.labels(region, model, version).inc()
            else:
                self.seconds.labels(region, model, version).observe(seconds)

    def _keep(self, region: str, model: str, version: str) -> None:
        kept = self._kept.setdefault((region, model), [])
        if version in kept:
            return
        # Both exist at 0 first: a rate over a series that appears with its first failure is blind.
        self.failures.labels(region, model, version)
        self.seconds.labels(region, model, version)
        kept.append(version)
        if len(kept) > KEPT_VERSIONS:
            oldest = kept.pop(0)
            self.failures.remove(region, model, oldest)
            self.seconds.remove(region, model, oldest)
