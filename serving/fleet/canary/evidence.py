"""Evidence on a canary and its baseline: what was measured, as plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from serving.fleet.routing import VersionCounters


@dataclass(frozen=True)
class ProbeSample:
    """One golden question to one version on one host: `seconds` until its end.

    `fault` is a sentence, empty where the answer was the golden one. `wrong`: there was an answer,
    and it was another; without it there was none (an error, a broken connection, a time-out).
    """

    seconds: float
    fault: str = ""
    wrong: bool = False

    @property
    def failed(self) -> bool:
        """True where the question got no answer."""
        return bool(self.fault) and not self.wrong

    @property
    def rank_seconds(self) -> float:
        """Seconds for comparisons: a question without an answer is slower than any with one."""
        return math.inf if self.failed else self.seconds


@dataclass(frozen=True)
class VersionEvidence:
    """One version: its probes by host, and its requests of clients while they were taken.

    `requests` are those that the edges gave it; None where no edge could be read twice.
    """

    probes: Mapping[str, tuple[ProbeSample, ...]] = field(default_factory=dict)
    requests: VersionCounters | None = None

    @property
    def samples(self) -> tuple[ProbeSample, ...]:
        """The probes of all hosts."""
        return tuple(sample for host in self.probes.values() for sample in host)


@dataclass(frozen=True)
class MemorySample:
    """Resident memory of one host's Triton and its stubs, `at_s` seconds after the first probe."""

    at_s: float
    resident_bytes: int


@dataclass(frozen=True)
class PrometheusCounts:
    """Requests of clients to one version as Prometheus counted them at the edges.

    `within` maps an upper edge in seconds to the answered requests that took no longer.
    """

    answered: int
    failed: int
    within: Mapping[float, int] = field(default_factory=dict)


@dataclass(frozen=True)
class PrometheusReading:
    """Both versions by Prometheus; `problem` is a sentence where it could not be read."""

    canary: PrometheusCounts | None = None
    baseline: PrometheusCounts | None = None
    problem: str = ""


@dataclass(frozen=True)
class CanaryEvidence:
    """Everything measured between the first probe and the last, `seconds` later.

    `baseline` is None where there is no version to compare with; `memory` is by host. `remarks`
    are sentences about what could not be measured.
    """

    canary: VersionEvidence
    baseline: VersionEvidence | None = None
    memory: Mapping[str, tuple[MemorySample, ...]] = field(default_factory=dict)
    prometheus: PrometheusReading | None = None
    seconds: float = 0.0
    remarks: tuple[str, ...] = ()
