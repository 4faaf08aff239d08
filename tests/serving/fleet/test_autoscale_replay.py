"""The policy over whole days of traffic: laws of every course, and a month under stated bounds."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig

from conf import compose
from conf.schema import from_config
from serving.fleet.capacity.demand import demand
from serving.fleet.capacity.knee import Knee
from serving.fleet.capacity.replay import ReplaySettings, course, replay
from serving.fleet.capacity.scaling import ScalePolicy, ScheduledHosts
from serving.fleet.capacity.traffic import DAY_MINUTES, DRAWN_MODEL, TrafficTrace, draw_traffic
from serving.fleet.cli.capacity import CapacityConfig
from serving.fleet.cli.replays import FIRST_DAY, replays, replays_lines, replays_table
from serving.fleet.errors import FleetConfigError
from tests.serving.fleet.edge_lines import log_line

MINUTELY = ReplaySettings(every=1, window=5, ready=2)
LOADS = st.lists(st.floats(0, 100), min_size=1, max_size=120)
SETTINGS = st.builds(ReplaySettings, st.integers(1, 5), st.integers(1, 10), st.integers(1, 5))
MOST_OVER = 0.001
"""Share of a month's minutes in which the load may be above the knee."""


@st.composite
def policies(draw) -> ScalePolicy:
    least = draw(st.integers(1, 10))
    hours = st.integers(0, 24)
    schedule = draw(
        st.lists(st.builds(ScheduledHosts, hours, hours, st.integers(1, 30)), max_size=2)
    )
    return ScalePolicy(
        least, least + draw(st.integers(0, 40)), draw(st.floats(0.1, 1)),
        draw(st.floats(0, 0.9)), 60.0 * draw(st.integers(0, 40)), tuple(schedule),
    )  # fmt: skip


def config(*overrides: str) -> DictConfig:
    return compose("capacity", list(overrides))


def settings_of(*overrides: str) -> CapacityConfig:
    return from_config(CapacityConfig, config(*overrides).capacity, "capacity")


def hosts_of(loads, policy: ScalePolicy, settings: ReplaySettings = MINUTELY) -> list[int]:
    return [one.hosts for one in course(loads, FIRST_DAY, policy, settings)]


@given(loads=LOADS, policy=policies(), settings=SETTINGS)
def test_a_course_keeps_to_bounds_schedule_and_cool_down(loads, policy, settings):
    hosts = hosts_of(loads, policy, settings)
    assert all(policy.least <= one <= policy.most for one in hosts)
    changes = [minute for minute, (a, b) in enumerate(pairwise(hosts), 1) if a != b]
    for first, second in pairwise(changes):
        scheduled = second % 60 < settings.every and policy.schedule
        assert (second - first) * 60 >= policy.cool_down_s or scheduled
    assert all(minute % settings.every == 0 for minute in changes)


@given(load=st.floats(0, 100), policy=policies(), length=st.integers(2, 60))
def test_a_constant_load_settles_in_one_change(load, policy, length):
    quiet = replace(policy, schedule=())
    assert len(set(hosts_of([load] * length, quiet))) == 1
    hosts = hosts_of([0.0] * 5 + [load] * length, replace(quiet, cool_down_s=0))
    assert sum(a != b for a, b in pairwise(hosts)) <= 1


@given(load=st.floats(0.1, 100), policy=policies(), seed=st.integers())
def test_a_load_that_swings_by_less_than_the_hysteresis_changes_nothing(load, policy, seed):
    draw = random.Random(seed)
    low = load * (1 - 0.999 * policy.hysteresis)
    loads = [load] + [draw.uniform(low, load) for _ in range(60)]
    quiet = replace(policy, schedule=(), cool_down_s=0)
    assert len(set(hosts_of(loads, quiet))) == 1


@given(loads=LOADS, policy=policies(), more=st.floats(1, 3))
def test_more_load_never_has_fewer_hosts(loads, policy, more):
    """Of courses that decide without a memory: neither hysteresis nor cool-down."""
    plain = replace(policy, hysteresis=0, cool_down_s=0)
    pairs = zip(hosts_of(loads, plain), hosts_of([more * one for one in loads], plain), strict=True)
    assert all(few <= many for few, many in pairs)


@given(load=st.floats(0.1, 5), spike=st.floats(1, 10), policy=policies(), after=st.integers(0, 30))
def test_a_spike_is_met_within_one_period(load, spike, policy, after):
    """The round that follows its first minute has hosts enough for it, within the bounds.

    Without a schedule: a change by it just before the spike begins a cool-down.
    """
    begin = max(1, int(policy.cool_down_s // 60)) + after
    hosts = hosts_of([load] * begin + [load * spike] * 10, replace(policy, schedule=()))
    need = min(policy.most, math.ceil(load * spike / policy.target))
    assert hosts[begin + 1] >= need


def test_a_spike_in_a_cool_down_waits_for_its_end_and_is_counted():
    policy = ScalePolicy(1, 20, 0.5, 0.2, 900)
    loads = [1.0] * 30 + [2.0] * 5 + [6.0] * 60
    found = replay("us-east", *traffic(loads), policy, MINUTELY)
    assert (found.changes, found.longest_wait_s) == (2, 600)
    assert found.over_knee > 0 and found.minutes_over == pytest.approx(13 / 95)
    again = replay("us-east", *traffic(loads), replace(policy, cool_down_s=0), MINUTELY)
    assert again.longest_wait_s == 0 and again.minutes_over < found.minutes_over


def test_a_schedule_brings_hosts_before_the_load_comes():
    policy = ScalePolicy(1, 20, 0.5, 0.2, 0, (ScheduledHosts(7, 9, 8),))
    hosts = hosts_of([0.1] * DAY_MINUTES, policy)
    assert {hour for hour in range(24) if hosts[hour * 60 + 59] == 8} == {7, 8}
    assert max(hosts[: 7 * 60]) == max(hosts[9 * 60 + 1 :]) == 1


def test_hosts_take_requests_after_the_time_that_they_need():
    policy = ScalePolicy(1, 20, 0.5, 0.2, 0)
    found = course([0.4] * 5 + [2.0] * 10, FIRST_DAY, policy, ReplaySettings(1, 5, 3))
    assert [one.hosts for one in found[4:8]] == [1, 1, 4, 4]
    assert [one.serving for one in found[6:11]] == [1, 1, 1, 4, 4]


def test_models_share_the_hosts_of_a_region():
    knees = {"a": Knee(100.0, ""), "b": Knee(10.0, ""), "c": None}
    assert demand({"a": 150.0, "b": 5.0, "c": 0.0}, knees).load == pytest.approx(2.0)
    unknown = demand({"a": "it is away", "b": 5.0, "c": 1.0}, knees)
    assert unknown.load is None
    assert unknown.unknown[0] == "a: it is away" and "c: no gate" in unknown.unknown[1]


def test_a_month_of_drawn_traffic_is_met_with_fewer_hosts_than_the_peak_needs():
    settings = settings_of()
    for seed in (1, 2, 3):
        drawn = draw_traffic(settings.simulation.drawn, 28, seed, FIRST_DAY)
        knees = {DRAWN_MODEL: Knee(settings.simulation.knee_per_s, "")}
        found = replay("drawn", drawn, knees, settings.policy, MINUTELY)
        assert found.minutes_over <= MOST_OVER, found
        assert found.host_hours < 0.6 * found.peak_host_hours, found
        least = sum(drawn.per_s[DRAWN_MODEL]) / 60 / settings.simulation.knee_per_s
        assert found.host_hours > least, "fewer would not bear it"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Ten hours of an edge's log: a wave of up to a request a second, odd lines between."""
    file = tmp_path_factory.mktemp("recorded") / "us-east.jsonl"
    draw = random.Random(7)
    with file.open("wb") as log:
        for minute in range(600):
            for _ in range(round(30 - 25 * math.cos(2 * math.pi * minute / 600))):
                at = FIRST_DAY + 60 * minute + draw.uniform(0, 60)
                status = 200 if draw.random() < 0.99 else 503
                log.write(log_line("us-east", at, "toy", status=status))
            log.write(log_line("us-east", FIRST_DAY + 60 * minute, "toy", path="/v2/health/ready"))
        log.write(b"Server triton/use1-a is DOWN\n{torn\n")
    return file


@pytest.fixture
def empty_site(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCKGATE_SITE", str(tmp_path))


def test_a_recorded_log_is_met_with_fewer_hosts_than_its_peak_needs(recorded, empty_site):
    small = config("capacity.simulation.knee_per_s=0.2")
    made = replays(small, "", 28, 1, str(recorded), 60)
    (found,) = made.regions
    assert (found.region, found.minutes) == ("us-east", 600)
    assert found.minutes_over <= 0.01 and found.changes > 3
    assert found.host_hours < 0.75 * found.peak_host_hours
    text = "\n".join(replays_lines(made))
    assert "601 lines about something else and 1 that are not of the log" in text
    assert "toy: a host bears 0.2 requests/s" in text and "us-east: 10 hours" in text
    assert replays_table(made).row_count == 1


def test_a_file_or_a_region_that_has_no_traffic_is_refused(recorded, empty_site, tmp_path):
    odd = tmp_path / "odd.jsonl"
    odd.write_bytes(b"{\nserver down\n")
    with pytest.raises(FleetConfigError, match="1 lines are not of an edge's request log, 1 are"):
        replays(config(), "", 28, 1, str(odd), 60)
    with pytest.raises(FleetConfigError, match="has no region us-eats"):
        replays(config(), "us-eats", 28, 1, str(recorded), 60)
    with pytest.raises(FileNotFoundError):
        replays(config(), "", 28, 1, str(tmp_path / "none"), 60)


@pytest.mark.parametrize("days", [0, -1, 367])
def test_days_that_cannot_be_drawn_are_refused(days):
    with pytest.raises(FleetConfigError, match="as in --days 28"):
        replays(config(), "", days, 1, "", 60)


def test_traffic_without_a_minute_or_a_knee_has_no_replay():
    policy = ScalePolicy(1, 2, 0.5, 0.2, 0)
    with pytest.raises(ValueError, match="no minute"):
        replay("x", TrafficTrace(0, {}), {}, policy, MINUTELY)
    with pytest.raises(ValueError, match="toy: no gate"):
        replay("x", TrafficTrace(0, {"toy": (1.0,)}), {}, policy, MINUTELY)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("capacity.window=5d", "window=5d: must be a minute at least, as in 5m"),
        ("capacity.window=30s", "window=30s: must be"),
        ("capacity.simulation.knee_per_s=0", "knee_per_s=0"),
        ("capacity.simulation.drawn.daily=2", "daily=2"),
        ("capacity.policy.least=0", "least=0"),
    ],
)
def test_a_key_that_cannot_be_is_named(override, sentence):
    with pytest.raises(ValueError, match=f"capacity.*{sentence}"):
        settings_of(override)


def traffic(loads: list[float]) -> tuple[TrafficTrace, dict[str, Knee | None]]:
    return TrafficTrace(FIRST_DAY, {"toy": tuple(loads)}), {"toy": Knee(1.0, "")}
