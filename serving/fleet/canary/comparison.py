"""Tests of a canary against its baseline: error rates, and the middle and tail of the latency.

Each fails where the canary is worse by the test at the level *and* by more than the limits bear.
Thresholds come from the baseline alone, so that worse data of the canary never help it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import median

from serving.fleet.canary.evidence import CanaryEvidence, PrometheusCounts, VersionEvidence
from serving.fleet.canary.limits import CanaryLimits
from serving.fleet.canary.significance import (
    binomial_greater,
    fisher_greater,
    mann_whitney_greater,
)
from serving.fleet.canary.verdict import VerdictPart
from serving.fleet.routing import VersionCounters

TESTS = 5
"""Tests of one look: `probe_errors`, `client_errors`, two of `latency`, `client_latency`."""
MIN_RANKED = 10
"""Fewest samples of the rank test on each side."""
_TAIL = 0.01


def probe_errors(evidence: CanaryEvidence, limits: CanaryLimits, level: float) -> VerdictPart:
    """Golden questions without an answer."""
    canary = _failed_probes(evidence.canary)
    baseline = _failed_probes(evidence.baseline) if evidence.baseline else None
    found = _error_rate("golden questions", "probes", canary, baseline, limits, level)
    first = next((one.fault for one in evidence.canary.samples if one.failed), "")
    more = f" The first: {first}" if first else ""
    return VerdictPart(found.outcome, found.sentence + more, found.numbers)


def client_errors(
    evidence: CanaryEvidence, limits: CanaryLimits, level: float
) -> Iterator[VerdictPart]:
    """Failed requests of clients at the edges; too few of them are no evidence for a pass."""
    canary = evidence.canary.requests
    baseline = evidence.baseline.requests if evidence.baseline else None
    enough = canary is not None and canary.requests >= limits.min_requests
    if canary is not None:
        compared = baseline if baseline and baseline.requests >= limits.min_requests else None
        found = _error_rate("requests of clients", "requests", canary, compared, limits, level)
        if enough or found.outcome == "fail":
            yield found
    if not enough:
        count = "no edge was read" if canary is None else f"the canary got {canary.requests}"
        yield VerdictPart(
            "inconclusive" if limits.require_traffic else "remark",
            f"requests of clients: {count}; their error rate is evidence for a pass from "
            f"{limits.min_requests} on (rollout.analysis.min_requests).",
        )


def latency(evidence: CanaryEvidence, limits: CanaryLimits, level: float) -> Iterator[VerdictPart]:
    """Golden questions that went to both versions alternately on the same hosts."""
    if evidence.baseline is None:
        yield VerdictPart("remark", "without a baseline, the latency was compared with nothing.")
        return
    canary = sorted(sample.rank_seconds for sample in evidence.canary.samples)
    baseline = sorted(sample.rank_seconds for sample in evidence.baseline.samples)
    if min(len(canary), len(baseline)) >= MIN_RANKED:
        yield _middle(canary, baseline, limits, level)
        yield _tail(canary, baseline, limits, level)


def _middle(
    canary: Sequence[float], baseline: Sequence[float], limits: CanaryLimits, level: float
) -> VerdictPart:
    middle, usual = median(canary), median(baseline)
    limit, chance = limits.slowest_s(usual), mann_whitney_greater(canary, baseline)
    return VerdictPart(
        "fail" if chance < level and middle > limit else "pass",
        f"half of the canary's golden answers took over {_ms(middle)}, of the baseline's over "
        f"{_ms(usual)}; {_ms(limit)} are borne (Mann-Whitney, {_p(chance, level)}).",
        _finite(canary_median_s=middle, baseline_median_s=usual, p_slower=chance),
    )


def _tail(
    canary: Sequence[float], baseline: Sequence[float], limits: CanaryLimits, level: float
) -> VerdictPart:
    """Answers over the limit that the baseline's slowest 1 % set.

    Under equal distributions, the number of the canary's answers above the r-th slowest of the
    baseline is hypergeometric in the pooled order (Gumbel and von Schelling, Annals of
    Mathematical Statistics 21, 1950, pages 247-262): Fisher's test with r - 1 of the baseline
    above. What lies between that answer and the limit is not counted against the canary.
    """
    above = math.floor(len(baseline) * _TAIL)
    threshold = baseline[-1 - above]
    limit = limits.slowest_s(threshold)
    slow = sum(seconds > limit for seconds in canary)
    chance = fisher_greater(slow, len(canary), above, len(baseline))
    return VerdictPart(
        "fail" if chance < level else "pass",
        f"{slow} of {len(canary)} golden answers of the canary took over {_ms(limit)}, which is "
        f"borne where the baseline's slowest 1 % begin at {_ms(threshold)} (exceedances, "
        f"{_p(chance, level)}).",
        _finite(
            canary_p95_s=_quantile(canary, 0.95), baseline_p95_s=_quantile(baseline, 0.95),
            slow_probes=slow, p_slow_probes=chance,
        ),
    )  # fmt: skip


def client_latency(
    evidence: CanaryEvidence, limits: CanaryLimits, level: float
) -> Iterator[VerdictPart]:
    """Slow or failed requests of clients by Prometheus, beyond a bucket with 99 % of the
    baseline's."""
    reading = evidence.prometheus
    if reading is None:
        return
    canary, baseline = reading.canary, reading.baseline
    if reading.problem or canary is None or baseline is None:
        why = reading.problem or "it has no requests of both versions"
        yield VerdictPart("remark", f"Prometheus was no judge: {why}.")
        return
    usual_s = _edge(baseline, (1 - _TAIL) * baseline.answered)
    limit_s = min(
        (one for one in canary.within if one >= limits.slowest_s(usual_s)), default=math.inf
    )
    totals = [one.answered + one.failed for one in (canary, baseline)]
    if min(totals) < max(1, limits.min_requests) or math.isinf(limit_s):
        yield VerdictPart(
            "remark",
            f"Prometheus was no judge: it has {totals[0]} requests of the canary and {totals[1]} "
            f"of the baseline, and buckets up to {max(canary.within, default=0):g} s.",
        )
        return
    slow = totals[0] - canary.within[limit_s]
    baseline_slow = totals[1] - baseline.within[usual_s]
    chance = fisher_greater(slow, totals[0], baseline_slow, totals[1])
    yield VerdictPart(
        "fail" if chance < level else "pass",
        f"{slow} of {totals[0]} requests of clients to the canary failed or took over "
        f"{limit_s:g} s, {baseline_slow} of {totals[1]} to the baseline failed or took over "
        f"{usual_s:g} s (Prometheus; Fisher, {_p(chance, level)}).",
        {"slow_requests": slow, "p_slow_requests": chance},
    )


def _error_rate(
    what: str,
    key: str,
    canary: VersionCounters,
    baseline: VersionCounters | None,
    limits: CanaryLimits,
    level: float,
) -> VerdictPart:
    """Against the baseline by Fisher's test; without one against a fixed rate, by the binomial."""
    sentence = f"the canary failed {canary.errors} of {canary.requests} {what}"
    numbers: dict[str, float] = {f"canary_{key}": canary.requests}
    numbers[f"canary_failed_{key}"] = canary.errors
    if baseline is None:
        chance = binomial_greater(canary.errors, canary.requests, limits.max_error_rate)
        sentence += f"; {limits.max_error_rate:.2%} are borne (binomial"
    else:
        numbers[f"baseline_{key}"] = baseline.requests
        numbers[f"baseline_failed_{key}"] = baseline.errors
        chance = fisher_greater(canary.errors, canary.requests, baseline.errors, baseline.requests)
        sentence += f", the baseline {baseline.errors} of {baseline.requests} (Fisher"
    numbers[f"p_failed_{key}"] = chance
    outcome = "fail" if chance < level else "pass"
    return VerdictPart(outcome, f"{sentence}, {_p(chance, level)}).", numbers)  # type: ignore[arg-type]


def _failed_probes(version: VersionEvidence) -> VersionCounters:
    samples = version.samples
    return VersionCounters(len(samples), sum(sample.failed for sample in samples))


def _edge(counts: PrometheusCounts, least: float) -> float:
    return min((one for one, within in counts.within.items() if within >= least), default=math.inf)


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[math.ceil(share * len(ordered)) - 1]


def _finite(**numbers: float) -> dict[str, float]:
    """The numbers that JSON can carry: seconds without an answer are none."""
    return {name: float(f"{one:.6g}") for name, one in numbers.items() if math.isfinite(one)}


def _ms(seconds: float) -> str:
    return "any time" if math.isinf(seconds) else f"{seconds * 1000:.1f} ms"


def _p(chance: float, level: float) -> str:
    return f"p = {chance:.2g} at level {level:.2g}"
