"""Error budgets and their burn rates: recording rules and burn alerts of both objectives.

Multi-window, multi-burn-rate alerts of the SRE Workbook, chapter 5, "Alerting on SLOs"
(https://sre.google/workbook/alerting-on-slos/): the long window shows that it matters, the short
one that it still happens. A minimum of bad requests keeps one failure of two from calling anybody.

    threshold = burn rate * (1 - objective),  burn rate = budget * SLO window / long window
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.utils import floatToGoString

from serving.observe.collectors.edge_log import OTHER, SERVER_REASONS
from serving.observe.rules.rule import Alert, Group, Record, Severity
from serving.observe.settings import Objectives

BY = "sum by (region, model)"
HOURS = {"5m": 1 / 12, "30m": 0.5, "1h": 1.0, "2h": 2.0, "6h": 6.0, "1d": 24.0, "3d": 72.0}


@dataclass(frozen=True)
class Pair:
    """Two windows. The alert fires when `budget` of the whole window's errors went in `long`."""

    severity: Severity
    budget: float
    long: str
    short: str


# Table 5-8 of the chapter: burn rates 14.4, 6, 3 and 1 over 30 days.
PAIRS = (
    Pair("page", 0.02, "1h", "5m"),
    Pair("page", 0.05, "6h", "30m"),
    Pair("ticket", 0.10, "1d", "2h"),
    Pair("ticket", 0.10, "3d", "6h"),
)


@dataclass(frozen=True)
class Indicator:
    """A service level indicator: bad requests of all, as counters."""

    alert: str
    name: str
    objective: float
    bad: tuple[str, ...]
    """The first counter, less the others."""
    total: str
    what: str

    def bad_over(self, function: str, window: str) -> str:
        """Bad requests by region and model; `function` is `rate` or `increase`."""
        return " - ".join(f"{BY} ({function}({counter}[{window}]))" for counter in self.bad)

    def total_over(self, function: str, window: str) -> str:
        """All requests by region and model; nothing where there were none.

        No traffic is no data: 0/0 would be NaN, and NaN stays in every longer average.
        """
        return f"({BY} ({function}({self.total}[{window}])) > 0)"


def indicators(slo: Objectives) -> tuple[Indicator, ...]:
    """Availability and latency. Requests for models that are not ours are in neither."""
    ours = f'model!="{OTHER}"'
    failures = f'lockgate_request_failures_total{{{ours},reason=~"{"|".join(SERVER_REASONS)}"}}'
    answered = f"lockgate_request_duration_seconds_count{{{ours}}}"
    edge = f'{ours},le="{floatToGoString(slo.latency_s)}"'
    fast = f"lockgate_request_duration_seconds_bucket{{{edge}}}"
    return (
        Indicator(
            alert="AvailabilityBurn",
            name="request_errors",
            objective=slo.availability,
            bad=(failures,),
            total=f"lockgate_requests_total{{{ours}}}",
            what="fails requests",
        ),
        Indicator(
            alert="LatencyBurn",
            name="request_slow",
            objective=slo.latency,
            bad=(answered, fast),
            total=answered,
            what=f"answers slower than {slo.latency_s:g} s",
        ),
    )


def slo_rules(slo: Objectives) -> Group:
    """The rules of both objectives."""
    return Group("slo", tuple(_rules(slo)))


def _rules(slo: Objectives) -> Iterator[Record | Alert]:
    for sli in indicators(slo):
        for window in HOURS:
            bad, total = sli.bad_over("rate", window), sli.total_over("rate", window)
            yield Record(_ratio(sli, window), f"({bad})\n/\n{total}")
        yield Record(
            f"region_model:{sli.name}:budget_left{slo.window_days}d",
            _budget_left(sli, slo.window_days),
        )
        for pair in PAIRS:
            yield _alert(sli, pair, slo)


def _alert(sli: Indicator, pair: Pair, slo: Objectives) -> Alert:
    factor = pair.budget * slo.window_days * 24 / HOURS[pair.long]
    limit = f"{factor * (1 - sli.objective):.6g}"
    return Alert(
        name=sli.alert,
        expr=(
            f"{_ratio(sli, pair.long)} > {limit}\n"
            f"and {_ratio(sli, pair.short)} > {limit}\n"
            f"and ({sli.bad_over('increase', pair.long)}) >= {slo.minimum_failures}"
        ),
        severity=pair.severity,
        summary=(
            f"{{{{ $labels.model }}}} in {{{{ $labels.region }}}} {sli.what}: "
            f"{{{{ $value | humanizePercentage }}}} over {pair.long}, allowed is "
            f"{100 * (1 - sli.objective):g}%"
        ),
        # Out and in again at the edge of the threshold is one event.
        keep="5m" if pair.severity == "page" else "30m",
        labels={"long": pair.long, "short": pair.short},
    )


def _ratio(sli: Indicator, window: str) -> str:
    return f"region_model:{sli.name}:ratio_rate{window}"


def _budget_left(sli: Indicator, days: int) -> str:
    bad, total = (over("increase", f"{days}d") for over in (sli.bad_over, sli.total_over))
    return f"1 - (({bad}) / {total}) / {1 - sli.objective:.6g}"
