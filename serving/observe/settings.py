"""`conf/observe.yaml` as frozen dataclasses: the schema, the meaning of each key, its limits."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf import ConfigError, compose

SCRAPED = (
    *("prometheus", "alertmanager", "node", "slurm", "lockgate"),
    *("triton", "host", "haproxy", "train"),
)
"""Every Prometheus job of a site, by the name that its series carry in `job`."""


@dataclass(frozen=True)
class Scrape:
    """Scrape settings of Prometheus."""

    interval_s: int = 15
    """Seconds between two scrapes of one target, and between two evaluations of the rules."""
    timeout_s: int = 10
    """A target that answers later than this is down."""
    training_refresh_s: int = 15
    """Seconds between two polls of the running training jobs."""
    training_targets: int = 200
    """More running jobs than this are refused as a whole: a loop that submits is not a fleet."""
    label_limit: int = 40
    """Labels of one series, the target's own included."""
    label_value_length_limit: int = 256
    """Characters of one label value."""
    samples: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SCRAPED, 5000))
    """Samples of one scrape, by job. A larger scrape is dropped whole: `up` becomes 0."""

    def __post_init__(self) -> None:
        if not 0 < self.timeout_s <= self.interval_s:
            raise ValueError("scrape.timeout_s must be above 0 and at most scrape.interval_s")
        if sorted(self.samples) != sorted(SCRAPED):
            raise ValueError(f"scrape.samples must name exactly {', '.join(SCRAPED)}")


@dataclass(frozen=True)
class Objectives:
    """Service level objectives, over a window of `window_days`."""

    availability: float = 0.999
    """Share of inference requests that the service did not fail."""
    latency: float = 0.99
    """Share of answered requests that took at most `latency_s`."""
    latency_s: float = 0.3
    """Seconds from a request's first byte at the edge to its answer's last."""
    window_days: int = 30
    """Days over which the error budget is counted."""
    minimum_failures: int = 10
    """Bad requests in the long window before an alert: one of two failed is not an outage."""

    def __post_init__(self) -> None:
        for name in ("availability", "latency"):
            if not 0.5 <= getattr(self, name) < 1:
                raise ValueError(f"slo.{name} must be at least 0.5 and below 1")
        if self.minimum_failures < 1:
            raise ValueError("slo.minimum_failures must be at least 1")


@dataclass(frozen=True)
class Exporter:
    """Settings of `python -m serving.observe.exporter`, which polls the fleet."""

    poll_s: float = 10.0
    """Seconds between two polls of the hosts and the journal."""
    timeout_s: float = 2.0
    """Seconds for one request to one Triton."""
    latency_edges_s: tuple[float, ...] = (0.01, 0.1, 0.3, 1.0, 10.0)
    """Upper edges of the latency histogram, ascending; one must be slo.latency_s."""

    def __post_init__(self) -> None:
        if self.poll_s <= 0 or self.timeout_s <= 0:
            raise ValueError("exporter.poll_s and exporter.timeout_s must be above 0")
        if list(self.latency_edges_s) != sorted(set(self.latency_edges_s)):
            raise ValueError("exporter.latency_edges_s must ascend")


@dataclass(frozen=True)
class AlertThresholds:
    """Limits that stand in the expressions of alerts, each compared with `>` or `<`."""

    collector_age_s: float = 120
    """Age of a collector's last good poll, of either exporter (SlurmStale, LockgateStale)."""
    edge_requests_per_s: float = 0.1
    """Requests at the edges above which an empty request log is a fault (EdgeLogSilent)."""
    malformed_lines: int = 10
    """Malformed lines of the request log in an hour (EdgeLogMalformed)."""
    edge_retry_ratio: float = 0.05
    """Connections tried again, as a share of an edge's responses (EdgeRetries)."""
    checkpoint_age_s: float = 7200
    """Age of a running job's last checkpoint (CheckpointOld)."""
    disk_free_ratio: float = 0.1
    """Free share of a file system, below which it is filling (DiskFilling)."""
    verification_age_s: float = 93600
    """Age of a host's last verification of itself; more than its interval (HostVerificationOld)."""
    golden_age_s: float = 900
    """Age of a host's last golden question to a version that it serves (HostAnswersOld)."""
    signature_left_s: float = 1209600
    """Time until a served package expires (SignatureExpiresSoon)."""
    cpu_pressure_ratio: float = 0.2
    """Share of time in which processes wait for a CPU (CpuPressure)."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
                raise ValueError(f"alerts.{one.name}={value!r} must be a number above 0")
            if one.name.endswith("_ratio") and value >= 1:
                raise ValueError(f"alerts.{one.name}={value!r} must be below 1")


@dataclass(frozen=True)
class Settings:
    """All of the key `observe`."""

    control_address: str = "127.0.0.1"
    """Addresses where Prometheus, Alertmanager and the site's exporters listen."""
    node_exporter_on_hosts: bool = False
    """True where every serving host runs a node_exporter; the box is one machine and runs one."""
    runbooks: str = "docs/sre.md"
    """The runbook of the alerts, without `#`: a file of this repository, or its URL."""
    webhook: str = ""
    """The receiver of Alertmanager's alerts; empty sends them nowhere."""
    scrape: Scrape = field(default_factory=Scrape)
    slo: Objectives = field(default_factory=Objectives)
    alerts: AlertThresholds = field(default_factory=AlertThresholds)
    exporter: Exporter = field(default_factory=Exporter)

    def __post_init__(self) -> None:
        if self.slo.latency_s not in self.exporter.latency_edges_s:
            raise ValueError(
                f"slo.latency_s={self.slo.latency_s} is not an edge of the histogram: add it to "
                "exporter.latency_edges_s, or no request can be counted as slower than it"
            )
        if self.webhook and urlsplit(self.webhook).scheme not in ("http", "https"):
            raise ValueError(f"receiver.webhook={self.webhook!r} is not an http or https URL")


def read_settings(cfg: DictConfig | None = None) -> Settings:
    """The settings in `cfg` (composed `observe`); without it, those of conf/observe.yaml.

    Raises `ConfigError` naming the key that is wrong.
    """
    cfg = compose("observe") if cfg is None else cfg
    try:
        node: Any = OmegaConf.to_container(cfg.observe, resolve=True, throw_on_missing=True)
        exporter = dict(node["exporter"])
        exporter["latency_edges_s"] = tuple(float(edge) for edge in exporter["latency_edges_s"])
        return Settings(
            control_address=str(node["control_address"]),
            node_exporter_on_hosts=bool(node["node_exporter_on_hosts"]),
            runbooks=str(node["runbooks"]),
            webhook=str(node["receiver"]["webhook"]),
            scrape=Scrape(**node["scrape"]),
            slo=Objectives(**node["slo"]),
            alerts=AlertThresholds(**node["alerts"]),
            exporter=Exporter(**exporter),
        )
    except (ValueError, TypeError, KeyError, OmegaConfBaseException) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"conf/observe.yaml: {reason}") from error
