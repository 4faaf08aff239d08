"""The exporter's view of the site between two polls, and its Prometheus series.

A poll queries the site; a scrape reads memory. A collector that failed has no series until it works
again, so that something broken never looks idle; its failure and its last success always have one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from conf.site_placement import Placement, hosts_of
from serving.artifact.manifest import ManifestError
from serving.artifact.store import StoreError, get
from serving.artifact.verify import parse_time
from serving.observe.collectors.release_collector import Ledger, read_ledger, read_releases
from serving.observe.collectors.triton_collector import STATES, ServedModel, poll_fleet

T = TypeVar("T")


@dataclass(frozen=True)
class Sources:
    """Folders and hosts to poll. `hosts`: name -> (address, HTTP port); `regions` by host."""

    store: Path
    journal: Path
    hosts: Mapping[str, tuple[str, int]]
    regions: Mapping[str, str]
    timeout_s: float
    placement: Placement = field(default_factory=dict)
    """Hosts of the models that are not on all of them."""


@dataclass(frozen=True)
class Health:
    """The last outcome of one collector. Times in seconds since the epoch."""

    success: bool
    last_success: float | None
    seconds: float


@dataclass(frozen=True)
class SignedVersion:
    """The manifest of one version: its digest, and its expiry in seconds since the epoch."""

    digest: str
    expires: float


@dataclass(frozen=True)
class SiteSnapshot:
    """The result of one poll; None where its collector failed."""

    ledger: Ledger | None = None
    releases: Mapping[tuple[str, str], int] | None = None
    served: Mapping[tuple[str, str], ServedModel] | None = None
    signed: Mapping[tuple[str, str], SignedVersion] = field(default_factory=dict)
    """(model, version) -> its manifest in the store, for every version served that is in it"""
    health: Mapping[str, Health] = field(default_factory=dict)


def poll_site(
    before: SiteSnapshot, sources: Sources, clock: Callable[[], float] = time.time
) -> tuple[SiteSnapshot, list[str]]:
    """Poll every source once; the second value is a sentence for each collector that failed."""
    health: dict[str, Health] = {}
    complaints: list[str] = []

    def collect(name: str, query: Callable[[], T]) -> T | None:
        began = clock()
        last = before.health[name].last_success if name in before.health else None
        try:
            value = query()
        except (OSError, ValueError, KeyError, TypeError) as error:
            complaints.append(f"{name}: {type(error).__name__}: {error}")
            health[name] = Health(False, last, clock() - began)
            return None
        health[name] = Health(True, clock(), clock() - began)
        return value

    lease = before.ledger.lease if before.ledger else None
    ledger = collect("ledger", lambda: read_ledger(sources.journal, lease))
    releases = collect("releases", lambda: read_releases(sources.store))
    models = tuple((ledger.production if ledger else {}) or before_models(before))

    def fleet() -> dict[tuple[str, str], ServedModel]:
        served = poll_fleet(sources.hosts, models, sources.timeout_s)
        if served and all(one.state == "unreachable" for one in served.values()):
            raise ConnectionError("no host answered")
        return _missed(served, sources.placement)

    served = collect("fleet", fleet)
    versions = {(model, one.version) for (_, model), one in (served or {}).items() if one.version}
    signed = {
        pair: found
        for pair in sorted(versions)
        if (found := before.signed.get(pair) or _signed(sources.store, *pair))
    }
    return SiteSnapshot(ledger, releases, served, signed, health), complaints


def _missed(
    served: Mapping[tuple[str, str], ServedModel], placement: Placement
) -> dict[tuple[str, str], ServedModel]:
    """`served` without the models that are not where they have no place."""
    return {
        (host, model): one
        for (host, model), one in served.items()
        if one.state in ("ready", "loading") or hosts_of(placement, model, [host])
    }


def before_models(snapshot: SiteSnapshot) -> tuple[str, ...]:
    """The models of an earlier poll: a journal that cannot be read does not end the watch."""
    return tuple(sorted({model for _, model in snapshot.served or {}}))


def _signed(store: Path, model: str, version: str) -> SignedVersion | None:
    try:
        manifest = get(store, model, int(version)).manifest
    except (StoreError, ManifestError, OSError):
        return None  # served, and not (or no longer) in the store: VersionDrift fires
    return SignedVersion(manifest.digest, parse_time(manifest.expires).timestamp())


class SnapshotCollector(Collector):
    """The last snapshot, as Prometheus series."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.snapshot = SiteSnapshot()

    def collect(self) -> Iterator[Metric]:
        """Called by each scrape; reads memory only."""
        now = self.snapshot
        yield from _health(now.health)
        if now.ledger is not None:
            yield from _ledger(now.ledger, self.sources.regions)
        if now.releases is not None:
            releases = _counter("releases", "Releases by how they ended.", "model", "result")
            for (model, result), count in sorted(now.releases.items()):
                releases.add_metric([model, result], count)
            yield releases
        if now.served is not None:
            yield from self._served(now)

    def _served(self, now: SiteSnapshot) -> Iterator[Metric]:
        info = _gauge(
            "model_served_info",
            "The version that answers on a host, by its digest in the store.",
            *("model", "version", "digest", "host", "region"),
        )
        state = _gauge(
            "model_state", "1 for the state a model is in on a host.",
            *("model", "host", "region", "state"),
        )  # fmt: skip
        for (host, model), served in sorted((now.served or {}).items()):
            region = self.sources.regions[host]
            for one in STATES:
                state.add_metric([model, host, region, one], float(served.state == one))
            if served.version is not None:
                signed = now.signed.get((model, served.version))
                digest = signed.digest if signed else ""
                info.add_metric([model, served.version, digest, host, region], 1.0)
        expires = _gauge(
            "model_signature_expires_timestamp_seconds",
            "From when on no host accepts a version that is served now.",
            *("model", "version"),
        )
        for (model, version), package in now.signed.items():
            expires.add_metric([model, version], package.expires)
        yield from (info, state, expires)


def _health(health: Mapping[str, Health]) -> Iterator[Metric]:
    success = _gauge("collector_success", "1 if the collector's last poll worked.", "collector")
    last = _gauge("collector_last_success_timestamp_seconds", "When it last worked.", "collector")
    took = _gauge("collector_duration_seconds", "How long its last poll took.", "collector")
    for name, one in sorted(health.items()):
        success.add_metric([name], float(one.success))
        took.add_metric([name], one.seconds)
        if one.last_success is not None:
            last.add_metric([name], one.last_success)
    yield from (success, last, took)


def _ledger(ledger: Ledger, regions: Mapping[str, str]) -> Iterator[Metric]:
    desired = _gauge(
        "model_desired_info", "The version that the ledger calls production.",
        *("model", "version", "digest"),
    )  # fmt: skip
    since = _gauge("model_desired_since_timestamp_seconds", "Since when.", "model")
    for model, production in sorted(ledger.production.items()):
        desired.add_metric([model, production.version, production.digest], 1.0)
        since.add_metric([model], production.since)
    rollouts = _counter("rollouts", "Rollouts by how they ended.", "model", "result")
    for (model, result), count in sorted(ledger.rollouts.items()):
        rollouts.add_metric([model, result.replace("-", "_")], count)
    rollbacks = _counter("rollbacks", "Returns to an earlier version, by whom.", "model", "by")
    for (model, by), count in sorted(ledger.rollbacks.items()):
        rollbacks.add_metric([model, by], count)
    progress = _gauge("rollout_in_progress", "1 while somebody rolls this model out.", "model")
    unfinished = _gauge("rollout_unfinished", "1 if a rollout is open.", "model")
    for model in sorted(ledger.unfinished):
        progress.add_metric([model], float(ledger.in_progress[model]))
        unfinished.add_metric([model], float(ledger.unfinished[model]))
    verified = _gauge(
        "artifact_last_verified_timestamp_seconds",
        "When a host last verified a package's signature and files.",
        *("model", "host", "region"),
    )
    for (model, host), at in sorted(ledger.verified.items()):
        if host in regions:  # a host that left the site has no series
            verified.add_metric([model, host, regions[host]], at)
    standby = _gauge("host_standby", "1 for a host that fab scale keeps out.", "host", "region")
    for host in sorted(ledger.standby & regions.keys()):
        standby.add_metric([host, regions[host]], 1.0)
    broken = _gauge("journal_broken_lines", "Lines of a journal file that are no record.", "file")
    for name, count in sorted(ledger.broken.items()):
        broken.add_metric([name], count)
    yield from (
        desired, since, rollouts, rollbacks, progress, unfinished, verified, standby, broken,
    )  # fmt: skip


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"lockgate_{name}", text, labels=labels)


def _counter(name: str, text: str, *labels: Any) -> CounterMetricFamily:
    return CounterMetricFamily(f"lockgate_{name}", text, labels=labels)
