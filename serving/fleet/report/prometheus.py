"""The site's Prometheus as the views need it: one expression over time or now, within a second.

It is never needed: an answer that does not come is a sentence in the place of the numbers.
"""

from __future__ import annotations

import http.client
import json
import math
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.credentials import PROMETHEUS, own_account
from conf.names import shown

TIMEOUT_S = 1.0
CLIENTS_FAULT = ("client_aborted", "rejected", "denied")
"""Reasons of failed requests that are not the service's; serving.observe counts by them."""
_MAX_BYTES = 4 << 20


@dataclass(frozen=True)
class TimeSeries:
    """Values over time, in seconds since the epoch; where there are none, `missing` says why."""

    points: tuple[tuple[float, float], ...] = ()
    missing: str = ""


@dataclass(frozen=True)
class PrometheusClient:
    """The Prometheus at `url` ("" for a site without one), with this user's own account."""

    url: str
    passwords: Path | None = None

    def over(self, expression: str, begin: float, end: float, step_s: float) -> TimeSeries:
        """One series over time; the first where the expression has more."""
        query = {"query": expression, "start": begin, "end": end, "step": step_s}
        found = self._get("query_range", query)
        if isinstance(found, str):
            return TimeSeries(missing=found)
        for series in found:
            points = tuple(_points(series.get("values")))
            if points:
                return TimeSeries(points)
        return TimeSeries(missing="Prometheus has no values of that time")

    def now(self, expression: str, at: float | None = None) -> float | str:
        """One value at `at` (now when None), or a sentence without its end."""
        found = self._get("query", {"query": expression, **({"time": at} if at else {})})
        if isinstance(found, str):
            return found
        for series in found:
            for _, value in _points([series.get("value")]):
                return value
        return "Prometheus has no value of it"

    def by_label(self, expression: str) -> list[tuple[dict[str, str], float]] | str:
        """Every series now, with its labels, or a sentence without its end."""
        found = self._get("query", {"query": expression})
        if isinstance(found, str):
            return found
        return [
            ({str(name): str(label) for name, label in labels.items()}, value)
            for series in found
            if isinstance(labels := series.get("metric"), dict)
            for _, value in _points([series.get("value")])
        ]

    def _get(self, kind: str, query: dict[str, Any]) -> list[Any] | str:
        if not self.url:
            return "the site has no Prometheus"
        try:
            request = urllib.request.Request(
                f"{self.url}/api/v1/{kind}?{urllib.parse.urlencode(query)}"
            )
        except ValueError:
            return f"Prometheus did not answer ({shown(self.url)} is no URL)"
        try:
            account = own_account(self.passwords, PROMETHEUS) if self.passwords else None
            if account:
                request.add_header("Authorization", account.header)
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
                found = json.loads(reply.read(_MAX_BYTES))["data"]["result"]
        except urllib.error.HTTPError as error:
            return f"Prometheus refused with {error.code} ({shown(str(error.reason))})"
        except (OSError, http.client.HTTPException) as error:
            return f"Prometheus did not answer ({shown(str(getattr(error, 'reason', error)))})"
        except (ValueError, KeyError, TypeError, RecursionError):
            return "Prometheus answered with something else than values"
        if not isinstance(found, list):
            return "Prometheus answered with something else than values"
        return [one for one in found if isinstance(one, dict)]


def error_rate(model: str, window: str) -> str:
    """The expression of failed requests as a share of all of a model, over all edges."""
    return f"({_failures(model, 'rate', window)} / ({_requests(model, 'rate', window)} > 0))"


def p99(model: str, window: str) -> str:
    """The expression of the 99th percentile of a model's answers in seconds, over all edges."""
    bucket = f'lockgate_request_duration_seconds_bucket{{model="{model}"}}'
    return f"histogram_quantile(0.99, sum by (le) (rate({bucket}[{window}])))"


def requests_in(model: str, window: str) -> str:
    """The expression of a model's requests in `window`."""
    return _requests(model, "increase", window)


def failures_in(model: str, window: str) -> str:
    """The expression of a model's failed requests in `window`."""
    return _failures(model, "increase", window)


def _requests(model: str, function: str, window: str) -> str:
    return f'sum({function}(lockgate_requests_total{{model="{model}"}}[{window}]))'


def _failures(model: str, function: str, window: str) -> str:
    ours = f'model="{model}",reason!~"{"|".join(CLIENTS_FAULT)}"'
    return f"sum({function}(lockgate_request_failures_total{{{ours}}}[{window}]))"


def _points(values: Any) -> list[tuple[float, float]]:
    found = []
    for pair in values if isinstance(values, list) else ():
        try:
            at, value = float(pair[0]), float(pair[1])
        except (TypeError, ValueError, IndexError):
            continue
        if math.isfinite(at) and math.isfinite(value):
            found.append((at, value))
    return found
