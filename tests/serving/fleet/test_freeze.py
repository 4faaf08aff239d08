"""Freeze windows by a clock on a wall: over midnight, and when the clock is set."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import REFUSED, ConfigError
from conf.schema import from_config
from serving.fleet.cli import command
from serving.fleet.errors import FleetRefusal
from serving.fleet.rollout.freeze import WEEKDAYS, FreezeWindow, frozen
from serving.fleet.rollout.journal import Journal
from serving.fleet.rollout.rollout_config import RolloutConfig

NEW_YORK = ZoneInfo("America/New_York")
SHIPMENT = SimpleNamespace(model="toy", version=3)
GOOD = {"days": ["fri"], "start": "17:00", "end": "09:00", "zone": "America/New_York",
        "reason": "nobody is here."}  # fmt: skip


def window(**changes) -> FreezeWindow:
    return from_config(FreezeWindow, {**GOOD, **changes}, "rollout.freeze[0]")


def at(text: str, zone=NEW_YORK) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone)


@pytest.mark.parametrize(
    ("changes", "inside", "outside"),
    [
        ({}, ["2026-11-27 17:00", "2026-11-28 08:59"],
         ["2026-11-27 16:59", "2026-11-28 09:00", "2026-11-26 18:00", "2026-11-28 18:00"]),
        ({"start": "08:00", "end": "12:00"}, ["2026-11-27 08:00", "2026-11-27 11:59"],
         ["2026-11-27 12:00", "2026-11-28 09:00"]),
        ({"end": "24:00"}, ["2026-11-27 23:59"], ["2026-11-28 00:00"]),
        ({"start": "00:00", "end": "24:00", "days": ["sat", "sun"]},
         ["2026-11-28 00:00", "2026-11-29 23:59"], ["2026-11-30 00:00", "2026-11-27 23:59"]),
        ({"start": "10:00", "end": "10:00"}, ["2026-11-27 10:00", "2026-11-28 09:59"],
         ["2026-11-28 10:00"]),
        ({"days": ["2026-12-31"]}, ["2026-12-31 18:00", "2027-01-01 08:00"],
         ["2026-12-30 18:00", "2027-12-31 18:00"]),
    ],
)  # fmt: skip
def test_a_window_holds_its_time_and_no_other(changes, inside, outside):
    one = window(**changes)
    assert [text for text in inside if not frozen([one], at(text))] == []
    assert [text for text in outside if frozen([one], at(text))] == []


def test_the_sentence_has_the_end_the_reason_and_the_way_round():
    said = frozen([window(days=["sun"]), window()], at("2026-11-27 20:00").astimezone(UTC))
    assert said == (
        "deployments are frozen until Sat 2026-11-28 09:00 (America/New_York): nobody is here. "
        "fab rollback and fab heal go on; to deploy all the same: "
        "fab deploy --set rollout.freeze=[]"
    )
    assert frozen([], at("2026-11-27 20:00")) == ""


def test_the_hour_that_comes_twice_is_frozen_twice_and_the_one_that_never_comes_is_none():
    one = window(days=["sun"], start="01:00", end="02:00")
    first = datetime(2026, 11, 1, 5, 30, tzinfo=UTC)  # 01:30 EDT, then 01:30 EST
    assert frozen([one], first) and frozen([one], first + timedelta(hours=1))
    assert not frozen([one], first + timedelta(hours=2))
    missing = window(days=["sun"], start="02:00", end="03:00")
    begun = datetime(2026, 3, 8, 0, 0, tzinfo=NEW_YORK).astimezone(UTC)
    assert not any(frozen([missing], begun + timedelta(minutes=n)) for n in range(0, 24 * 60, 7))


CLOCK = st.tuples(st.integers(0, 23), st.integers(0, 59))


@settings(max_examples=500, deadline=None)
@given(
    start=CLOCK,
    end=CLOCK,
    days=st.sets(st.sampled_from(WEEKDAYS), min_size=1),
    zone=st.sampled_from(["America/New_York", "America/Los_Angeles", "UTC", "Pacific/Chatham"]),
    minute=st.integers(0, 2 * 366 * 24 * 60),
)
def test_an_instant_is_frozen_by_what_the_clock_on_the_wall_says(start, end, days, zone, minute):
    one = FreezeWindow(
        tuple(days), f"{start[0]:02}:{start[1]:02}", f"{end[0]:02}:{end[1]:02}", zone, "r"
    )
    now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)
    wall = now.astimezone(ZoneInfo(zone))
    clock, today = (wall.hour, wall.minute), WEEKDAYS[wall.weekday()]
    yesterday = WEEKDAYS[(wall.weekday() - 1) % 7]
    if start < end:
        wanted = today in days and start <= clock < end
    else:
        wanted = (today in days and clock >= start) or (yesterday in days and clock < end)
    assert bool(frozen([one], now)) == wanted
    assert bool(frozen([one], now.astimezone(NEW_YORK))) == wanted, "the caller's zone is nothing"
    until = one.until(now)
    assert (until is None) == (not wanted)
    assert until is None or until > wall.replace(tzinfo=None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"days": ["friday"]}, r"rollout\.freeze\[0\]\.days.*mon, tue"),
        ({"days": ["2026-13-01"]}, "nor a date"),
        ({"days": []}, "at least one of mon to sun"),
        ({"start": "9:00"}, 'start.*write it in quotes, as "09:30"'),
        ({"start": "24:00"}, "is no time of day"),
        ({"end": "24:01"}, "is no time of day"),
        ({"end": "+1:00"}, "is no time of day"),
        ({"start": 570}, "rollout.freeze.0..start is 570, not of type str"),
        ({"zone": "Mars/Base"}, "is no time zone"),
        ({"zone": "../etc/passwd"}, "is no time zone"),
        ({"reason": " "}, "the next person wants to know why"),
        ({"until": "10:00"}, "until is unknown here"),
    ],
)
def test_a_window_that_cannot_be_is_refused_by_its_key(changes, message):
    with pytest.raises(ConfigError, match=message):
        window(**changes)


def test_a_window_refuses_a_deployment_and_no_way_back(tmp_path, monkeypatch):
    always = window(days=list(WEEKDAYS), start="00:00", end="24:00")
    journal = Journal(tmp_path)
    config = RolloutConfig(freeze=(always,))
    on = command.Controls(None, tmp_path, journal, config, "", None)
    monkeypatch.setattr(command, "read_shipment", lambda *_: SHIPMENT)
    monkeypatch.setattr(command, "_carry_out", lambda *arguments: arguments[2])
    with pytest.raises(FleetRefusal, match=r"frozen until .* --set rollout\.freeze=") as refused:
        command.deploy(on, "toy", 3, lambda *_: None)
    assert refused.value.exit_code == REFUSED
    assert journal.events() == [], "nothing was begun"
    for version in (1, 2):
        journal.enter("deploy", f"r{version}", model="toy", version=version, digest="d")
    assert command.rollback(on, "toy", None, lambda *_: None) == "rollback"
    assert command.heal(on, "toy", lambda *_: None) == "heal"
    free = command.Controls(None, tmp_path, journal, RolloutConfig(), "", None)
    assert command.deploy(free, "toy", 3, lambda *_: None) == "deploy"
