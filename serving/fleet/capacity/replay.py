"""A policy against traffic that was recorded or drawn, by the decisions of `fab autoscale`.

Nothing is waited for: a minute of traffic is a step. The load that is decided on is the busiest
minute of the window before, as Prometheus gives it; hosts that are brought in take requests after
the time that this takes, and those that are taken out take none at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby, pairwise

from serving.fleet.capacity.demand import demand
from serving.fleet.capacity.knee import Knee
from serving.fleet.capacity.scaling import ScalePolicy, scale_decision
from serving.fleet.capacity.traffic import MINUTE_S, TrafficTrace

_PER_HOUR = 3600 / MINUTE_S


@dataclass(frozen=True)
class ReplaySettings:
    """Times of a replay in minutes: between two decisions, of the window, to bring in a host."""

    every: int
    window: int
    ready: int


@dataclass(frozen=True)
class ReplayedMinute:
    """A minute of a replay: `hosts` are wanted and paid, `serving` of them take requests.

    `waiting` while the cool-down holds a change back.
    """

    load: float
    hosts: int
    serving: int
    waiting: bool


@dataclass(frozen=True)
class Replay:
    """One region's traffic under a policy.

    `over_knee` is the share of the load above the knee of the hosts that took requests,
    `minutes_over` the share of minutes with any. `host_hours` were used; `peak_host_hours` would be
    with the hosts that the busiest minute and the schedule need all the time, `most_host_hours`
    with `policy.most`.
    """

    region: str
    minutes: int
    over_knee: float
    minutes_over: float
    fewest: int
    highest: int
    host_hours: float
    peak_host_hours: float
    most_host_hours: float
    changes: int
    longest_wait_s: int


def replay(
    region: str,
    traffic: TrafficTrace,
    knees: Mapping[str, Knee | None],
    policy: ScalePolicy,
    settings: ReplaySettings,
) -> Replay:
    """Walk through the traffic of a region.

    Raises ValueError for traffic without a minute, or of a model without a knee.
    """
    loads = _loads(traffic, knees)
    found = course(loads, traffic.begin_s, policy, settings)
    length, total = len(loads), sum(loads)
    hosts = [one.hosts for one in found]
    always = max(scale_decision(policy, policy.least, max(loads), math.inf, hour).hosts
                 for hour in range(24))  # fmt: skip
    return Replay(
        region, length,
        sum(max(0.0, one.load - one.serving) for one in found) / total if total else 0.0,
        sum(one.load > one.serving for one in found) / length,
        min(hosts), max(hosts), sum(hosts) / _PER_HOUR,
        always * length / _PER_HOUR, policy.most * length / _PER_HOUR,
        sum(before != after for before, after in pairwise(hosts)), _longest_wait(found) * MINUTE_S,
    )  # fmt: skip


def course(
    loads: Sequence[float], begin_s: float, policy: ScalePolicy, settings: ReplaySettings
) -> list[ReplayedMinute]:
    """Each minute of a load in hosts at their knee, from the hosts that the first one needs."""
    hosts = serving = scale_decision(
        policy, policy.least, loads[0], math.inf, _hour(begin_s)
    ).hosts  # fmt: skip
    joined, changed, waiting, found = 0, -math.inf, False, []
    for minute, load in enumerate(loads):
        if minute and minute % settings.every == 0:
            busiest = max(loads[max(0, minute - settings.window) : minute])
            since_s, hour = (minute - changed) * MINUTE_S, _hour(begin_s + minute * MINUTE_S)
            decision = scale_decision(policy, hosts, busiest, since_s, hour)
            waiting = decision.waiting is not None
            if decision.hosts != hosts:
                hosts, changed, joined = decision.hosts, minute, minute + settings.ready
        serving = hosts if minute >= joined else min(serving, hosts)
        found.append(ReplayedMinute(load, hosts, serving, waiting))
    return found


def replay_line(one: Replay, most: int) -> str:
    """One line for a person."""
    return (
        f"{one.region}: {one.minutes / 60:.3g} hours with {one.fewest} to {one.highest} "
        f"hosts; {one.over_knee:.3%} of the load came above the knee, in {one.minutes_over:.3%} of "
        f"the minutes; {one.host_hours:.0f} host-hours, where always as many as the peak needs are "
        f"{one.peak_host_hours:.0f} and always {most} are {one.most_host_hours:.0f}; "
        f"{one.changes} changes, the longest wait for a cool-down {one.longest_wait_s} s."
    )


def _loads(traffic: TrafficTrace, knees: Mapping[str, Knee | None]) -> list[float]:
    loads = []
    for minute in range(traffic.minutes):
        found = demand({model: rates[minute] for model, rates in traffic.per_s.items()}, knees)
        if found.load is None:
            raise ValueError("; ".join(found.unknown))
        loads.append(found.load)
    if not loads:
        raise ValueError("the traffic has no minute")
    return loads


def _longest_wait(found: Iterable[ReplayedMinute]) -> int:
    runs = [len(list(run)) for waiting, run in groupby(found, lambda one: one.waiting) if waiting]
    return max(runs, default=0)


def _hour(at_s: float) -> int:
    return datetime.fromtimestamp(at_s, UTC).hour
