"""Instances that follow the load: before hosts do, in bounds, and at rest under a constant load."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.errors import DONE, FAILED
from serving.fleet.capacity.instance_decision import InstancePolicy, speed, wanted_instances
from serving.fleet.capacity.scaling import ScalePolicy, scale_decision
from serving.fleet.capacity.traffic import DRAWN_MODEL, draw_traffic
from serving.fleet.cli.autoscale import exit_code, scaling_lines
from serving.fleet.cli.autoscale_instances import InstanceScaling
from serving.fleet.cli.replays import FIRST_DAY
from serving.fleet.cli.scale import scale_instances
from tests.serving.fleet.autoscaled import POLICY, Site, capacity_config, memory_folder

HOUR = 3600
FOLLOW = replace(POLICY, instances=InstancePolicy(1, 4, 0.5))
"""A host of a model with one instance bears 10 requests a second, with four 25."""


@pytest.fixture
def site(monkeypatch):
    with memory_folder() as folder:
        yield Site(folder, monkeypatch)


def counts(site: Site) -> set[int]:
    return {one.loaded for one in site.driver.machines.values() if one.edge == "ready"}


def test_instances_come_before_hosts_go_and_the_journal_has_why(site):
    """20 requests a second want four hosts with one instance, and two with three."""
    found = site.round(FOLLOW)
    step = found[0]
    assert isinstance(step, InstanceScaling) and (step.count, step.target) == (1, 3)
    assert "3 instances of toy on each of 6 hosts" in step.done
    assert (site.taking(), site.taking("us-west"), counts(site)) == (2, 1, {3})
    names = [one.event for one in site.on.journal.read_rollouts().entries]
    assert names.index("scaled") < names.index("standby")
    assert exit_code(found) == DONE
    assert site.on.journal.instances("toy") == 3
    assert site.driver.outages == [] and site.driver.unproven == []
    assert [one.done for one in site.round(FOLLOW)] == ["", ""]


def test_without_a_measured_gain_instances_stay(site):
    site.rates = {"us-east": 40.0, "us-west": 20.0}
    found = site.round()
    assert not [one for one in found if isinstance(one, InstanceScaling)] and counts(site) == {1}
    assert not capacity_config().policy.instances.follows


def test_where_the_instances_cannot_be_had_no_host_goes_out(site):
    site.driver.machines["e0"].max_instances = 2
    step, east, _ = site.round(FOLLOW)
    assert "e0 takes 2 instances of a model at most" in step.failed
    assert not east.done and "toy has not its instances yet" in east.decision.reason
    assert (site.taking(), counts(site)) == (4, {1})


def test_with_a_region_named_instances_stay_and_hosts_count_with_those(site):
    scale_instances(site.on, "toy", 3, "by hand", lambda *_: None)
    (east,) = site.round(FOLLOW, region="us-east")
    assert east.decision.load == pytest.approx(1.0) and site.taking() == 3
    assert site.on.journal.instances("toy") == 3


def test_the_cool_down_counts_from_the_journal_whoever_ordered(site):
    scale_instances(site.on, "toy", 2, "by hand", lambda *_: None)
    site.now_s += 899
    step, *_ = site.round(FOLLOW)
    assert step.target == step.count == 2 and "the last change was 899 s ago" in step.reason
    assert site.taking() == 4, "and hosts wait for it"
    site.now_s += 1
    step, *_ = site.round(FOLLOW)
    assert step.done and counts(site) == {3}


def test_no_data_is_no_decision_and_a_plan_changes_nothing(site):
    lines = [line for one in site.round(FOLLOW, plan=True) for line in scaling_lines(one, True)]
    assert "toy: 1 -> 3 instances: fab autoscale does it" in lines and counts(site) == {1}
    site.rates["us-west"] = "Prometheus has no value of it"
    found = site.round(FOLLOW)
    assert found[0].undecided and exit_code(found) == FAILED and counts(site) == {1}
    assert site.taking() == 4 and "no decision" in scaling_lines(found[0], False)[0]


def test_instances_go_down_only_when_no_host_moves(site):
    site.round(FOLLOW)
    site.now_s += HOUR
    site.rates = {"us-east": 3.0, "us-west": 1.0}
    step, east, _ = site.round(FOLLOW)
    assert east.decision.out == () and site.taking() == 1 and not step.done
    site.now_s += HOUR
    step, *_ = site.round(FOLLOW)
    assert step.target < 3 and step.done and min(counts(site)) == step.target
    assert site.round(FOLLOW)[0:1] != [step]


@pytest.mark.parametrize(
    ("count", "packaged", "gain", "wanted"),
    [(1, 1, 0.5, 1.0), (3, 1, 0.5, 2.0), (2, 2, 0.5, 1.0), (1, 2, 0.5, 0.5), (4, 2, 0.0, 1.0)],
)
def test_a_host_bears_what_the_gain_says(count, packaged, gain, wanted):
    assert speed(count, packaged, gain) == wanted


@pytest.mark.parametrize("bad", [(0, 1, 0.1), (3, 2, 0.1), (1, 2, -0.1), (1, 2, 1.1)])
def test_bounds_that_cannot_be_are_refused(bad):
    with pytest.raises(ValueError, match="must be"):
        InstancePolicy(*bad)


MODELS = ("a", "b", "c")
SHARE = st.floats(0, 4, allow_subnormal=False)


@given(
    loads=st.dictionaries(
        st.sampled_from(["h1", "h2", "h3"]), st.dictionaries(st.sampled_from(MODELS), SHARE)
    ),
    now=st.fixed_dictionaries({model: st.integers(1, 9) for model in MODELS}),
    packaged=st.fixed_dictionaries({model: st.integers(1, 4) for model in MODELS}),
    least=st.integers(1, 3),
    more=st.integers(0, 5),
    gain=st.floats(0.05, 1),
    target=st.floats(0.1, 1),
    hysteresis=st.floats(0, 0.9),
)
def test_bounds_hold_and_a_second_round_changes_nothing(
    loads, now, packaged, least, more, gain, target, hysteresis
):
    policy = InstancePolicy(least, least + more, gain)
    rest = (packaged, policy, target, hysteresis)
    found = wanted_instances(loads, now, *rest)
    assert all(least <= count <= least + more for count in found.values())
    assert wanted_instances(loads, found, *rest) == found
    for one in loads.values():
        full = sum(x / speed(found[m], packaged[m], gain) for m, x in one.items())
        spare = [m for m, x in one.items() if x > 0 and found[m] < policy.most]
        worst = max(
            sum(x / speed(found[m], packaged[m], gain) for m, x in other.items())
            for other in loads.values()
        )
        assert full <= target or full < worst or not spare, "no place is left full for nothing"


@given(
    rate=st.floats(0, 200, allow_subnormal=False),
    hosts=st.integers(1, 4),
    count=st.integers(1, 6),
    policy=st.builds(
        ScalePolicy, st.integers(1, 2), st.integers(2, 4), st.floats(0.3, 1), st.floats(0, 0.5),
        st.just(0.0), instances=st.builds(
            InstancePolicy, st.integers(1, 2), st.integers(2, 6), st.floats(0.1, 1)),
    ),
)  # fmt: skip
def test_a_constant_load_comes_to_rest_within_all_bounds(rate, hosts, count, policy):
    """Hosts by the load at the most instances, instances by the load of the hosts: as a round."""
    seen = []
    for _ in range(6):
        load = rate / 10 / speed(policy.instances.most, 1, policy.instances.gain)
        wanted = scale_decision(policy, hosts, load, 1e9, 0).hosts
        own = {"h": {"toy": rate / 10 / min(hosts, wanted)}}
        step = wanted_instances(
            own, {"toy": count}, {"toy": 1}, policy.instances, policy.target, policy.hysteresis
        )["toy"]
        count = step if step > count or wanted == hosts else count
        hosts = wanted
        seen.append((hosts, count))
        assert policy.least <= hosts <= policy.most
    assert len(set(seen[2:])) == 1, "after hosts, then instances, nothing moves any more"


@pytest.mark.full
def test_a_drawn_day_keeps_to_the_bounds_and_loses_no_request(site):
    shape = replace(capacity_config().simulation.drawn, mean_per_s=12.0, bursts_per_week=20.0)
    rates = draw_traffic(shape, 1, 3, FIRST_DAY).per_s[DRAWN_MODEL]
    changes = 0
    for minute in range(20, len(rates), 20):
        site.now_s = FIRST_DAY + HOUR + 60 * minute
        site.rates = {"us-east": max(rates[minute - 5 : minute]), "us-west": 3.0}
        found = site.round(FOLLOW)
        assert not [one.failed for one in found if one.failed]
        changes += sum(bool(one.done) for one in found)
        assert 1 <= site.taking() <= 4 and counts(site) <= {1, 2, 3, 4}
    assert changes > 3 and site.driver.outages == [] and site.driver.unproven == []
