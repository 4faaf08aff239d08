"""`fab autoscale` where models have hosts of their own: by host, in bounds, never to and fro."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.errors import DONE
from conf.site_placement import ModelPlacement
from serving.fleet.capacity.placed_decision import PlacedHosts, decide_placed, host_loads
from serving.fleet.capacity.scaling import ScalePolicy
from serving.fleet.cli.autoscale import exit_code
from tests.serving.fleet.autoscaled import POLICY, Site, memory_folder

HOUR = 3600
NAMES = tuple(f"h{n}" for n in range(5))


@pytest.fixture
def site(monkeypatch):
    with memory_folder() as folder:
        made = Site(folder, monkeypatch)
        placement = {"toy": ModelPlacement(("e0", "e2", "w0", "w1"))}
        made.on = replace(made.on, fleet=replace(made.on.fleet, placement=placement))
        yield made


def test_hosts_of_a_placed_model_follow_its_load_and_no_request_is_lost(site):
    """`e1` and `e3` have no model at all: they go out first; `e0` and `e2` share the load."""
    site.rates = {"us-east": 8.0, "us-west": 2.0}
    east, west = site.round()
    assert exit_code([east, west]) == DONE
    assert set(east.decision.out) == {"e1", "e3"} and "on standby" in east.done
    assert west.decision.out == ("w1",)
    site.now_s += HOUR
    site.rates["us-east"] = 2.0
    east, _ = site.round()
    assert east.decision.out == ("e2",) and site.taking() == 1
    site.now_s += HOUR
    site.rates["us-east"] = 7.0
    east, _ = site.round()
    assert east.decision.into == ("e2",) and "e2 came in" in east.done
    assert site.driver.outages == [] and site.driver.unproven == []
    assert [one.done for one in site.round()] == ["", ""]


def test_a_doubt_takes_no_host_out_and_the_cool_down_holds(site):
    site.rates["us-east"], site.logged["us-east"] = 1.0, 1.0
    site.answered["us-east"] = {"e0": 30.0}
    east, _ = site.round()
    assert not east.done and "not done, its hosts answered 30" in east.decision.reason
    del site.answered["us-east"]
    del site.logged["us-east"]
    east, _ = site.round()
    assert east.done
    site.rates["us-east"] = 9.0
    site.now_s += 899
    east, _ = site.round()
    assert not east.done and "the last change was 899 s ago" in east.decision.reason
    site.now_s += 1
    assert site.round()[0].decision.into == ("e2",)


@st.composite
def regions(draw):
    """Hosts, the hosts of two models and of all others, loads, and a policy."""
    owns = st.sets(st.sampled_from(NAMES), min_size=1)
    of_model = {"a": draw(owns), "b": draw(owns), "rest": set(NAMES)}
    taking = draw(st.sets(st.sampled_from(NAMES)))
    for own in of_model.values():  # a model never begins without a host: check_placement
        if not own & taking:
            taking.add(min(own))
    order = [name for name in NAMES if name in taking]
    waiting = draw(st.sets(st.sampled_from(NAMES))) - taking
    loads = {m: draw(st.floats(0, 3, allow_subnormal=False)) for m in of_model}
    least = draw(st.integers(1, 2))
    policy = ScalePolicy(
        least, draw(st.integers(least, 5)), draw(st.floats(0.2, 1)), draw(st.floats(0, 0.6)), 900
    )
    wait = tuple(name for name in NAMES if name in waiting)
    return PlacedHosts(tuple(order), wait, of_model), loads, policy


def moved(hosts: PlacedHosts, made) -> PlacedHosts:
    taking = {*hosts.taking, *made.into} - {*made.out}
    out = ({*hosts.waiting} | {*made.out}) - {*made.into}
    return replace(
        hosts,
        taking=tuple(name for name in NAMES if name in taking),
        waiting=tuple(name for name in NAMES if name in out),
    )


@given(drawn=regions())
def test_under_a_constant_load_nothing_goes_to_and_fro_and_bounds_hold(drawn):
    hosts, loads, policy = drawn
    came: set[str] = set()
    left: set[str] = set()
    for _ in range(8):
        made = decide_placed("r", hosts, loads, "", policy, 1e9, 0)
        assert made.target == made.serving + len(made.into) - len(made.out)
        assert {*made.into} <= {*hosts.waiting} and {*made.out} <= {*hosts.taking}
        assert not (made.into and made.out)
        within = len(hosts.taking) <= policy.most
        hosts = moved(hosts, made)
        assert not within or len(hosts.taking) <= policy.most
        assert all({*own} & {*hosts.taking} for own in hosts.of_model.values())
        if within:
            assert not left & {*made.into}, "what went out under this load never comes back"
        came, left = came | {*made.into}, left | {*made.out}
        if not (made.into or made.out):
            break
    assert not (made.into or made.out), "it comes to rest"
    if made.missing == 0 and len(hosts.taking) <= policy.most:
        parts = host_loads(hosts.taking, hosts.of_model, loads).values()
        assert max(sum(one.values()) for one in parts) <= policy.target + 1e-9


def test_more_hosts_than_the_policy_has_go_out_and_the_schedule_brings_them_in():
    hosts = PlacedHosts(NAMES, (), {"a": ("h0",), "rest": NAMES})
    small = replace(POLICY, most=2)
    made = decide_placed("r", hosts, {"rest": 9.0}, "", small, 0.0, 0)
    assert made.target == 2 and "h0" not in made.out and made.missing > 0
    few = PlacedHosts(("h0",), ("h1", "h2"), {"a": ("h0",), "rest": NAMES})
    assert decide_placed("r", few, {}, "", replace(POLICY, least=2), 0.0, 0).target == 2
