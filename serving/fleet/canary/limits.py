"""The limits of a canary: the `rollout.analysis` section of conf/rollout.yaml."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CanaryLimits:
    """The least evidence of a verdict, and the most by which a canary may be worse."""

    hosts: int = 2
    """Prepared hosts that are asked at the same time, of every region some."""
    min_probes: int = 120
    """Golden questions to each version on each asked host before a canary can pass."""
    later_probes: int = 30
    """The same, of a canary that passed a step already."""
    probe_share: float = 0.5
    """Longest share of the time that one host spends on golden questions."""
    wait_s: float = 300.0
    """Longest extension of the watch while there is too little evidence."""
    error_level: float = 0.01
    """Greatest chance that a canary no worse than its baseline is stopped by chance."""
    max_error_rate: float = 0.01
    """Share of failed requests that is borne where there is no baseline to compare with."""
    min_requests: int = 100
    """Requests of clients to each version before their error rates are compared for a pass."""
    require_traffic: bool = False
    """Fewer requests of clients than that are too little evidence."""
    max_latency_ratio: float = 1.5
    """A canary may be this many times as slow as its baseline."""
    latency_allowance_ms: float = 20.0
    """However fast the baseline is, this many milliseconds more are borne."""
    max_growth_mib: float = 128.0
    """Growth of the memory of one host's Triton over the watch that is borne."""

    def __post_init__(self) -> None:
        for name in ("hosts", "min_probes", "later_probes", "max_latency_ratio",
                     "max_growth_mib"):  # fmt: skip
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name):g}: must be above 0")
        for name in ("wait_s", "min_requests", "latency_allowance_ms"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name):g}: must not be negative")
        for name in ("error_level", "max_error_rate"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name):g}: must be above 0 and below 1")
        if not 0 < self.probe_share <= 1:
            raise ValueError(f"probe_share={self.probe_share:g}: must be above 0, and 1 at most")
        if self.max_latency_ratio < 1:
            raise ValueError(f"max_latency_ratio={self.max_latency_ratio:g}: must be at least 1")

    def slowest_s(self, baseline_s: float) -> float:
        """The longest time that is borne where the baseline takes `baseline_s`."""
        allowance_s = self.latency_allowance_ms / 1000
        return max(baseline_s * self.max_latency_ratio, baseline_s + allowance_s)
