"""Capacity: what a host bears, when growth fills the fleet, and decisions that do not flap."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from conf import compose
from conf.schema import from_config
from serving.artifact.manifest import GateRecord
from serving.fleet.capacity.growth import DAY_S, day_of_limit, fit_trend
from serving.fleet.capacity.headroom import (
    RegionLoad,
    headroom,
    headroom_line,
    hosts_to_spare,
)
from serving.fleet.capacity.knee import Knee, knee_of
from serving.fleet.capacity.scaling import (
    ScaleDecision,
    ScalePolicy,
    ScheduledHosts,
    scale_decision,
)
from serving.fleet.cli.capacity import (
    CapacityConfig,
    HostTraffic,
    host_line,
    read_hosts,
    read_load,
)

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()
LOADS = st.floats(0, 1e6)
KNEES = st.floats(0.1, 1e4)


@st.composite
def policies(draw) -> ScalePolicy:
    least = draw(st.integers(1, 20))
    hours = st.integers(0, 24)
    schedule = draw(
        st.lists(st.builds(ScheduledHosts, hours, hours, st.integers(1, 60)), max_size=3)
    )
    return ScalePolicy(
        least, least + draw(st.integers(0, 40)), draw(st.floats(0.1, 1)),
        draw(st.floats(0, 0.9)), draw(st.floats(0, 3600)), tuple(schedule),
    )  # fmt: skip


def gate(name: str, value: float | None, verdict: str = "pass") -> GateRecord:
    return GateRecord(name, verdict, True, value, 100.0, "")  # type: ignore[arg-type]


def test_the_knee_is_the_highest_load_that_a_gate_measured():
    gates = (gate("latency.p50.c1", 2.0), gate("latency.p50.c16", 10.0), gate("latency.p99.c16", 1),
             gate("latency.p50.c64", 1.0, "fail"), gate("quality", 0.9))  # fmt: skip
    found = knee_of(SimpleNamespace(gates=gates))
    assert found and found.requests_per_s == pytest.approx(1600)
    assert found.basis == "16 clients at p50 10 ms in the gate latency.p50.c16"
    assert knee_of(SimpleNamespace(gates=(gate("quality", 0.9),))) is None


@given(slope=st.floats(-100, 100), level=st.floats(-1e4, 1e4), days=st.integers(7, 40),
       odd=st.integers(0, 6))  # fmt: skip
def test_one_odd_day_does_not_turn_the_trend(slope, level, days, odd):
    points = [(float(k), level + slope * k) for k in range(days)]
    points[odd] = (float(odd), 1e9)
    found = fit_trend(points)
    assert found and found.slope == pytest.approx(slope, abs=1e-3)


def test_the_day_at_which_growth_meets_the_limit():
    peaks = [(NOW - k * DAY_S, 100.0 - k) for k in range(20, -1, -1)]
    at = day_of_limit(peaks, 130.0, NOW)
    assert at is not None and (at - NOW) / DAY_S == pytest.approx(30)
    assert day_of_limit(peaks, 90.0, NOW) == NOW, "full already"
    assert day_of_limit(peaks[-3:], 130.0, NOW) is None, "three days are no trend"
    assert day_of_limit([(at, 50.0) for at, _ in peaks], 130.0, NOW) is None
    assert day_of_limit(peaks, 1e9, NOW) is None, "farther than anybody can say"


@given(hosts=st.integers(0, 50), load=LOADS, knee=KNEES)
def test_the_hosts_that_stay_bear_the_load(hosts, load, knee):
    spare = hosts_to_spare(hosts, load, knee)
    assert 0 <= spare <= hosts
    if spare:
        assert (hosts - spare) * knee >= load * (1 - 1e-9) and hosts - spare >= 1


@given(policy=policies(), hosts=st.integers(0, 80), load=LOADS, knee=KNEES,
       since=st.floats(0, 1e5), hour=st.integers(0, 23))  # fmt: skip
def test_a_decision_is_never_outside_the_bounds(policy, hosts, load, knee, since, hour):
    found = scale_decision(policy, hosts, load / knee, since, hour)
    assert policy.least <= found.hosts <= policy.most


@given(policy=policies(), hosts=st.integers(0, 80), loads=st.tuples(LOADS, LOADS), knee=KNEES,
       since=st.floats(0, 1e5), hour=st.integers(0, 23))  # fmt: skip
def test_more_load_never_wants_fewer_hosts(policy, hosts, loads, knee, since, hour):
    low, high = (
        scale_decision(policy, hosts, load / knee, since, hour).hosts for load in sorted(loads)
    )
    assert low <= high


@given(policy=policies(), start=st.integers(1, 80), knee=KNEES, hour=st.integers(0, 23),
       steps=st.lists(st.tuples(st.floats(1, 600), LOADS), min_size=2, max_size=40))  # fmt: skip
def test_nothing_changes_twice_within_the_cool_down(policy, start, knee, hour, steps):
    hosts, now, changed = start, 0.0, -math.inf
    for wait, load in steps:
        now += wait
        found = scale_decision(policy, hosts, load / knee, now - changed, hour).hosts
        if found != hosts:
            assert now - changed >= policy.cool_down_s or not (policy.least <= hosts <= policy.most)
            hosts, changed = found, now


@given(policy=policies(), hosts=st.integers(1, 60), load=LOADS, knee=KNEES, hour=st.integers(0, 23),
       swing=st.floats(0, 1))  # fmt: skip
def test_a_load_that_swings_by_less_than_the_hysteresis_moves_no_host(
    policy, hosts, load, knee, hour, swing
):
    """Grown to a load, the fleet keeps its hosts while the load falls by less than that."""
    grown = scale_decision(policy, hosts, load / knee, math.inf, hour)
    settled = scale_decision(policy, grown.hosts, load / knee, math.inf, hour)
    assert settled.hosts == grown.hosts
    assume(grown.hosts > hosts)
    lower = load * (1 - policy.hysteresis * swing * 0.999)
    assert scale_decision(policy, grown.hosts, lower / knee, math.inf, hour).hosts == grown.hosts


def test_the_number_that_the_cool_down_holds_back_is_known():
    policy = ScalePolicy(1, 10, 0.5, 0.2, 900)
    assert scale_decision(policy, 2, 2.0, 900, 12) == ScaleDecision(
        4, "a load of 2 hosts at their knee needs 4 at 50% of it"
    )
    held = scale_decision(policy, 2, 2.0, 899, 12)
    assert (held.hosts, held.waiting) == (2, 4) and "the last change was 899 s ago" in held.reason


def test_a_schedule_raises_the_least_over_midnight_too():
    policy = ScalePolicy(1, 8, 0.5, 0.2, 0, (ScheduledHosts(22, 4, 5),))
    assert [scale_decision(policy, 1, 0, math.inf, h).hosts for h in (21, 22, 3, 4)] == [
        1, 5, 5, 1,
    ]  # fmt: skip


def test_the_headroom_of_a_region():
    policy = ScalePolicy(1, 10, 0.6, 0.2, 900)
    peaks = tuple((NOW - k * DAY_S, 100.0 - k) for k in range(20, -1, -1))
    found = headroom("toy", "us-east", 4, Knee(50.0, ""), RegionLoad(80.0, peaks), policy, NOW)
    assert (found.share, found.may_fail, found.full_on) == (0.5, 2, "2026-09-09")
    assert found.decision == ScaleDecision(4, "the number of hosts is right")
    line = headroom_line(found)
    assert "4 hosts at 50% of their knee" in line and "2 may fail; full on 2026-09-09" in line


@pytest.mark.parametrize(
    ("knee", "load", "sentence"),
    [
        (None, RegionLoad(5.0), "no gate of the version in production measured"),
        (Knee(1, ""), RegionLoad(missing="the site has no Prometheus"), "the site has no Prom"),
    ],
)
def test_what_is_not_known_is_said_and_never_a_number(knee, load, sentence):
    policy = ScalePolicy(1, 10, 0.6, 0.2, 900)
    found = headroom("toy", "us-east", 4, knee, load, policy, NOW)
    assert (found.share, found.may_fail, found.full_on, found.decision) == (None,) * 4
    assert sentence in headroom_line(found) and "capacity unknown" in headroom_line(found)


def test_the_load_is_read_by_region_and_its_absence_is_a_sentence():
    class PrometheusStub:
        def __init__(self, now):
            self.value, self.asked = now, []

        def now(self, expression):
            self.asked.append(expression)
            return self.value

        def over(self, expression, begin, end, step_s):
            self.asked.append(expression)
            return SimpleNamespace(points=((begin, 3.0),), missing="")

    settings = from_config(CapacityConfig, compose("capacity").capacity, "capacity")
    stub = PrometheusStub(7.0)
    found = read_load(stub, "toy", "us-east", settings, NOW)
    assert found.now_per_s == 7.0 and found.peaks[0][1] == 3.0
    assert all('model="toy",region="us-east"' in expression for expression in stub.asked)
    assert read_load(PrometheusStub("it is away"), "toy", "us-east", settings, NOW).missing


def test_the_traffic_of_each_host_is_read_from_the_edges_of_its_region():
    class PrometheusStub:
        def __init__(self, answer):
            self.answer = answer

        def by_label(self, expression):
            assert 'region="us-east"' in expression and "sum by (server)" in expression
            return self.answer

    series = [({"server": "b"}, 2.0), ({"server": "a"}, 1.5)]
    found = read_hosts(PrometheusStub(series), "us-east", "5m")
    assert found == HostTraffic("us-east", {"b": 2.0, "a": 1.5})
    assert host_line(found) == "us-east: requests/s of each host: a 1.5, b 2."
    for answer in ("it is away", []):
        missing = read_hosts(PrometheusStub(answer), "us-east", "5m")
        assert missing.missing and "unknown: " in host_line(missing)
