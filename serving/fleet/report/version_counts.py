"""Requests of two versions at the edges as Prometheus counted them, for the judge of a canary."""

from __future__ import annotations

import math
from contextlib import suppress

from serving.fleet.canary.evidence import PrometheusCounts, PrometheusReading
from serving.fleet.canary.gathering import PrometheusReader
from serving.fleet.report.prometheus import PrometheusClient

_LEAST_S = 60
"""Shorter windows hold too few scrapes for an increase."""
_SERIES = "lockgate_version_request"


def prometheus_reader(client: PrometheusClient, model: str) -> PrometheusReader:
    """A reader of both versions over the time of the watch, a minute at least.

    That may reach back into an earlier step of the same versions, which is evidence as well.
    """

    def read(canary: int, baseline: int, seconds: float) -> PrometheusReading:
        window = f"{max(_LEAST_S, math.ceil(seconds))}s"
        which = f'{{model="{model}",version=~"{canary}|{baseline}"}}[{window}]'
        buckets = client.by_label(
            f"sum by (version, le) (increase({_SERIES}_duration_seconds_bucket{which}))"
        )
        failures = client.by_label(f"sum by (version) (increase({_SERIES}_failures_total{which}))")
        for answer in (buckets, failures):
            if isinstance(answer, str):
                return PrometheusReading(problem=answer)
        assert not isinstance(buckets, str) and not isinstance(failures, str)
        return PrometheusReading(
            _counts(canary, buckets, failures), _counts(baseline, buckets, failures)
        )

    return read


def _counts(
    version: int,
    buckets: list[tuple[dict[str, str], float]],
    failures: list[tuple[dict[str, str], float]],
) -> PrometheusCounts | None:
    """One version's counts; None where Prometheus has none of it.

    An increase is extrapolated to the whole window, and so no whole number.
    """
    within: dict[float, int] = {}
    for labels, value in buckets:
        if labels.get("version") == str(version):
            with suppress(ValueError):  # a label that is no number is no bucket
                within[float(labels.get("le", ""))] = round(value)
    answered = within.pop(math.inf, None)
    if answered is None:
        return None
    failed = sum(value for labels, value in failures if labels.get("version") == str(version))
    return PrometheusCounts(answered, round(failed), within)
