"""Traffic: drawn from a seed with the shape that was asked for, or recorded by an edge's log."""

from __future__ import annotations

import json
import re
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.fleet.capacity.recorded_traffic import LONGEST_DAYS, log_lines, recorded_traffic
from serving.fleet.capacity.traffic import (
    DAY_MINUTES,
    DRAWN_MODEL,
    MINUTE_S,
    DrawnTraffic,
    TrafficTrace,
    draw_traffic,
)
from tests.serving.fleet.edge_lines import log_line

MONDAY = 1_767_571_200.0  # 2026-01-05 00:00 UTC
NOON = MONDAY + 12 * 3600
FLAT = {
    "mean_per_s": 100.0, "daily": 0.0, "weekend": 1.0, "weekly_growth": 0.0, "noise": 0.0,
    "bursts_per_week": 0.0, "burst": 1.0, "burst_minutes": 10,
}  # fmt: skip


def drawn(days: int = 14, seed: int = 1, **shape: float) -> tuple[float, ...]:
    return draw_traffic(DrawnTraffic(**{**FLAT, **shape}), days, seed, MONDAY).per_s[DRAWN_MODEL]  # type: ignore[arg-type]


def test_the_same_seed_draws_the_same_minutes_and_another_one_others():
    shape = {"noise": 0.1, "bursts_per_week": 20.0, "burst": 3.0}
    assert drawn(seed=1, **shape) == drawn(seed=1, **shape) != drawn(seed=2, **shape)


def test_each_part_of_the_shape_is_there():
    assert set(drawn()) == {100.0}
    wave = drawn(daily=0.5)
    assert max(wave) == pytest.approx(150) and min(wave) == pytest.approx(50)
    assert mean(wave) == pytest.approx(100) and wave[20 * 60] == max(wave)
    weekend = drawn(weekend=0.4)
    assert {round(one) for one in weekend[: 5 * DAY_MINUTES]} == {100}
    assert {round(one) for one in weekend[5 * DAY_MINUTES : 7 * DAY_MINUTES]} == {40}
    assert drawn(weekly_growth=0.1)[7 * DAY_MINUTES] == pytest.approx(110)
    bursts = drawn(bursts_per_week=5.0, burst=4.0, burst_minutes=10)
    assert set(bursts) == {100.0, 400.0} and bursts.count(400.0) % 10 == 0


@given(
    shape=st.fixed_dictionaries(
        {
            "mean_per_s": st.floats(0, 1e5), "daily": st.floats(0, 1), "weekend": st.floats(0, 2),
            "weekly_growth": st.floats(-0.9, 1), "noise": st.floats(0, 5),
            "bursts_per_week": st.floats(0, 1000), "burst": st.floats(0, 10),
            "burst_minutes": st.integers(1, 100),
        }
    )
)  # fmt: skip
def test_a_minute_never_has_less_than_no_requests(shape):
    rates = drawn(days=1, **shape)
    assert len(rates) == DAY_MINUTES and min(rates) >= 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mean_per_s", -1),
        ("daily", 1.1),
        ("weekly_growth", -1),
        ("burst_minutes", 0),
        ("noise", -1),
    ],
)
def test_a_shape_that_cannot_be_is_refused_by_its_key(key, value):
    with pytest.raises(ValueError, match=f"^{key}={value}"):
        DrawnTraffic(**{**FLAT, key: value})  # type: ignore[arg-type]


def test_models_of_unequal_length_are_no_traffic():
    with pytest.raises(ValueError, match="as many minutes"):
        TrafficTrace(MONDAY, {"a": (1.0,), "b": (1.0, 2.0)})


def test_a_line_of_the_test_is_a_line_of_the_log():
    entry = json.loads(log_line("us-east", NOON + 1.25, "toy"))
    assert (entry["ts_ms"], entry["status"]) == ((NOON + 1.25) * 1000, 200)
    assert (entry["region"], entry["path"]) == ("us-east", "/v2/models/toy/infer")
    assert not [value for value in entry.values() if "%" in str(value)]


def test_requests_are_counted_by_region_model_and_minute():
    lines = [
        *(log_line("us-east", NOON + second, "toy") for second in range(60)),
        *(log_line("us-east", NOON + 120 + second, "toy", status=503) for second in range(30)),
        log_line("us-west", NOON + 60, "toy", path="/v2/models/toy/versions/3/infer?x=1"),
        log_line("us-west", NOON + 60, "other.model-1"),
    ]
    found = recorded_traffic(lines)
    assert (found.requests, found.other, found.odd) == (92, 0, 0)
    east, west = found.regions["us-east"], found.regions["us-west"]
    assert east.begin_s == west.begin_s == NOON
    assert east.per_s == {"toy": (1.0, 0.0, 0.5), "other.model-1": (0.0, 0.0, 0.0)}
    assert west.per_s["toy"] == (0.0, 1 / MINUTE_S, 0.0)


def test_lines_about_something_else_are_counted_apart():
    lines = [
        log_line("us-east", NOON, "toy"),
        log_line("us-east", NOON, "toy", path="/v2/health/ready"),
        log_line("us-east", NOON, "toy", path="/v2/models/toy"),
        log_line("us-east", NOON, "stats", path="/v2/models/stats/infer"),
        b"Server triton/use1-a is DOWN\n",
        b"\n",
    ]
    found = recorded_traffic(lines)
    assert (found.requests, found.other, found.odd) == (1, 5, 0)


def test_a_model_that_only_clients_know_is_none():
    lines = [log_line("us-east", NOON, "toy")]
    lines += [log_line("us-east", NOON, f"invented-{n}", status=404) for n in range(50)]
    lines += [log_line("us-east", NOON, "invented-50", status=503)]
    found = recorded_traffic(lines)
    assert list(found.regions["us-east"].per_s) == ["toy"]
    assert (found.requests, found.other, found.odd) == (1, 51, 0)


GOOD = json.loads(log_line("us-east", NOON, "toy"))


@pytest.mark.parametrize(
    "line",
    [
        b"{", b"{}", b"{1: 2}", b'{"a":' * 5000, b"{\xff\xfe}",
        *(json.dumps({**GOOD, **odd}).encode()
          for odd in ({"ts_ms": -1}, {"ts_ms": 10**30}, {"ts_ms": "1"}, {"ts_ms": True},
                      {"ts_ms": 1.5}, {"path": 7}, {"status": None}, {"region": "../x"},
                      {"region": "u" * 65}, {"region": None}, {"path": "http://[x/infer"})),
    ],
)  # fmt: skip
def test_an_odd_line_is_passed_over_and_hides_no_other(line):
    found = recorded_traffic([log_line("us-east", NOON, "toy"), line])
    assert (found.requests, found.odd) == (1, 1)
    assert found.regions["us-east"].minutes == 1


def test_a_clock_that_is_wrong_by_years_makes_no_years_of_zeros():
    lines = [log_line("us-east", NOON + 60 * n, "toy") for n in range(5)]
    lines += [log_line("us-east", NOON + day * 86_400, "toy")
              for day in (-LONGEST_DAYS, LONGEST_DAYS, 9000)]  # fmt: skip
    found = recorded_traffic(lines)
    assert (found.requests, found.odd, found.regions["us-east"].minutes) == (5, 3, 5)


@given(st.lists(st.one_of(st.binary(max_size=60), st.builds(lambda b: b"{" + b, st.binary()),
                          st.dictionaries(st.sampled_from(sorted(GOOD)),
                                          st.one_of(st.integers(), st.text(), st.none()))
                          .map(lambda odd: json.dumps({**GOOD, **odd}).encode()))))  # fmt: skip
def test_every_line_is_counted_once_whatever_it_holds(lines):
    found = recorded_traffic(lines)
    assert found.requests + found.other + found.odd == len(lines)
    counted = sum(sum(rates) for one in found.regions.values() for rates in one.per_s.values())
    assert counted * MINUTE_S == pytest.approx(found.requests)


def test_a_file_without_line_ends_is_read_in_pieces(tmp_path):
    file = tmp_path / "edge.jsonl"
    file.write_bytes(b"x" * 100_000 + b"\n" + log_line("us-east", NOON, "toy"))
    lines = list(log_lines(file))
    assert max(map(len, lines)) <= 8192 and lines[-1] == log_line("us-east", NOON, "toy")
    assert re.fullmatch(b"x+\n", b"".join(lines[:-1]))
