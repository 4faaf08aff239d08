"""`fab autoscale` on a simulated fleet: hosts follow the load, and a doubt takes none out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conf.errors import FAILED, INCOMPLETE
from serving.fleet.capacity.demand import Demand
from serving.fleet.capacity.region_decision import RegionHosts, counting_doubt, decide_region
from serving.fleet.capacity.replay import ReplaySettings, course
from serving.fleet.capacity.traffic import DRAWN_MODEL, draw_traffic
from serving.fleet.cli import scale
from serving.fleet.cli.autoscale import exit_code, scaling_lines
from serving.fleet.cli.replays import FIRST_DAY
from serving.fleet.errors import FleetConfigError, FleetError
from serving.fleet.rollout.host_orders import drain, quarantine
from serving.fleet.rollout.journal import Journal
from tests.serving.fleet.autoscaled import POLICY, Site, capacity_config, memory_folder

HOUR = 3600


@pytest.fixture
def site(monkeypatch):
    with memory_folder() as folder:
        yield Site(folder, monkeypatch)


def test_each_region_follows_its_own_load_and_the_reason_is_in_the_journal(site):
    east, west = site.round()
    assert (east.decision.serving, east.decision.target, east.done) == (4, 4, "")
    assert west.decision.load == pytest.approx(0.3) and "w1 on standby" in west.done
    assert (site.taking(), site.taking("us-west")) == (4, 1)
    event = [one for one in site.on.journal.read_rollouts().entries if one.event == "standby"]
    assert [one.host for one in event] == ["w1"]
    assert event[0].content["reason"] == (
        "fab autoscale us-west: a load of 0.3 hosts at their knee needs 1 at 50% of it"
    )
    assert site.driver.outages == [] and site.driver.unproven == []


def test_a_second_round_has_nothing_to_do(site):
    site.round()
    lines = len(site.on.journal.read_rollouts().entries)
    assert [one.done for one in site.round()] == ["", ""]
    assert len(site.on.journal.read_rollouts().entries) == lines


def test_a_plan_changes_nothing(site):
    changes = len(site.driver.changes)
    _, west = site.round(plan=True)
    assert west.decision.target == 1 and not west.done
    assert scaling_lines(west, plan=True)[1] == "us-west: 2 -> 1 hosts; fab autoscale does it"
    assert site.taking("us-west") == 2 and len(site.driver.changes) == changes


def test_the_cool_down_counts_from_the_journal_whoever_scaled(site):
    scale.scale_hosts(site.on, "us-west", 1, "by hand", lambda *_: None)
    site.rates["us-west"] = 10.0
    site.now_s += 899
    (held,) = site.round(region="us-west")
    assert held.decision.target == 1 and "the last change was 899 s ago" in held.decision.reason
    site.now_s += 1
    (done,) = site.round(region="us-west")
    assert "w1 came in" in done.done and site.taking("us-west") == 2


def test_one_region_does_not_cool_down_for_another(site):
    scale.scale_hosts(site.on, "us-west", 1, "by hand", lambda *_: None)
    site.rates["us-east"] = 3.0
    east, _ = site.round()
    assert east.decision.target == 1 and site.taking() == 1


def test_hosts_that_are_missing_are_counted_and_what_there_is_comes_in(site):
    scale.scale_hosts(site.on, "us-west", 1, "by hand", lambda *_: None)
    site.now_s += HOUR
    site.rates["us-west"] = 20.0
    (west,) = site.round(region="us-west")
    assert (west.decision.target, west.decision.missing, site.taking("us-west")) == (2, 2, 2)
    assert scaling_lines(west, plan=False)[-1] == (
        "us-west: hosts missing: 2. Type: fab add HOST --address ADDRESS --region us-west"
    )
    (again,) = site.round(region="us-west")
    assert not again.done and not again.failed and again.decision.missing == 2


def test_a_host_that_does_not_answer_is_tried_once_in_a_cool_down(site):
    scale.scale_hosts(site.on, "us-east", 3, "by hand", lambda *_: None)
    site.driver.machines["e3"].reachable = False
    tried = []
    for minute in range(0, 31, 5):
        site.now_s = FIRST_DAY + HOUR + 60 * minute
        (east,) = site.round(region="us-east")
        tried.append("e3 does not answer" in east.failed)
        assert site.taking() == 3
    assert tried == [True, False, False, True, False, False, True]
    site.driver.machines["e3"].reachable = True
    site.now_s += 900
    (east,) = site.round(region="us-east")
    assert "e3 came in" in east.done and site.taking() == 4


@pytest.mark.parametrize("act", [drain, quarantine])
def test_a_host_that_a_person_took_out_neither_counts_nor_comes_in(site, act):
    site.order("e3", act)
    (east,) = site.round(region="us-east")
    made = east.decision
    assert (made.serving, made.there, made.target, made.missing) == (3, 3, 3, 1)
    assert site.driver.machines["e3"].edge != "ready"


def test_a_region_that_cannot_be_read_is_named_and_hides_no_other(site):
    site.rates["us-east"] = "Prometheus has no value of it"
    east, west = site.round()
    assert east.decision.load is None and site.taking() == 4
    assert scaling_lines(east, plan=False) == [
        "us-east: 4 of 4 hosts; no decision: toy: Prometheus has no value of it."
    ]
    assert west.done and exit_code([east, west]) == FAILED
    site.driver.edges["us-west"].reachable = False
    site.rates["us-east"] = 20.0
    east, west = site.round()
    assert "an edge does not answer: nobody knows whether w0, w1" in west.decision.reason
    assert east.decision.load == pytest.approx(2.0)


def test_a_region_that_cannot_be_scaled_is_named_and_hides_no_other(site):
    site.rates = {"us-east": 3.0, "us-west": 3.0}
    plain = site.driver.drain

    def drain_host(host):
        if host.region == "us-east":
            raise FleetError(f"{host.name}: its edge is silent.")
        plain(host)

    site.driver.drain = drain_host
    east, west = site.round()
    assert "its edge is silent" in east.failed and site.taking() == 4
    assert west.done and exit_code([east, west]) == INCOMPLETE
    assert "4 -> 1 hosts: " in scaling_lines(east, plan=False)[1]


@pytest.mark.parametrize(
    ("logged", "answered", "sentence"),
    [
        (1.0, {"e0": 15.0, "e1": 15.0}, "its hosts answered 30 requests/s, and the log of its edg"),
        (1.0, "it is away", "nobody knows how much its hosts answered: it is away"),
        ("it is away", {"e0": 1.0}, "nobody knows how much its edges logged: it is away"),
    ],
)
def test_a_log_that_does_not_arrive_takes_no_host_out(site, logged, answered, sentence):
    site.rates["us-east"] = 1.0
    site.logged["us-east"], site.answered["us-east"] = logged, answered
    (east,) = site.round(region="us-east")
    assert (east.decision.target, site.taking()) == (4, 4)
    assert f"not done, {sentence}" in east.decision.reason


def test_doubt_holds_up_no_host_that_is_to_come_in():
    more = decide_region("us-east", RegionHosts(1, 4), Demand(1.5), "doubt", POLICY, 1e9, 0)
    assert (more.target, more.missing) == (3, 0)
    assert counting_doubt(10.0, 19.0) == ""


def test_nothing_in_production_and_a_region_that_is_none_are_mistakes(site, tmp_path):
    with pytest.raises(FleetConfigError, match="no region us-eats"):
        site.round(region="us-eats")
    site.on = replace(site.on, journal=Journal(tmp_path / "empty"))
    with pytest.raises(FleetConfigError, match="fab deploy first"):
        site.round()


@pytest.mark.full
def test_a_drawn_day_on_the_simulated_fleet_goes_as_its_replay(site):
    """Through the plan, the lock and the journal, the hosts are those of the replay, each round."""
    every = 20
    shape = replace(
        capacity_config().simulation.drawn,
        mean_per_s=9.0, bursts_per_week=20.0,
    )  # fmt: skip
    rates = draw_traffic(shape, 1, 3, FIRST_DAY).per_s[DRAWN_MODEL]
    settings = ReplaySettings(every=every, window=5, ready=1)
    wanted = course([rate / 10.0 for rate in rates], FIRST_DAY, POLICY, settings)
    scale.scale_hosts(site.on, "us-east", wanted[0].hosts, "begin", lambda *_: None)
    site.now_s += HOUR  # the first cool-down is over
    found = [wanted[0].hosts]
    for minute in range(every, len(rates), every):
        site.now_s = FIRST_DAY + HOUR + 60 * minute
        site.rates["us-east"] = max(rates[minute - 5 : minute])
        (one,) = site.round(region="us-east")
        assert not one.failed
        found.append(site.taking())
    assert found == [one.hosts for one in wanted[::every]]
    assert len(set(found)) > 2 and site.driver.outages == [] and site.driver.unproven == []
