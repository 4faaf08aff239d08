"""`fab scale --hosts` on a simulated fleet: the number asked for, whoever is unfit on the way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.errors import INCOMPLETE, REFUSED
from serving.fleet.cli import scale
from serving.fleet.errors import FleetConfigError, FleetError, FleetRefusal
from serving.fleet.rollout import host_orders
from serving.fleet.rollout.instances import ScaledInPart
from serving.fleet.rollout.lease import Locked, hold
from serving.fleet.rollout.reserve import choose_hosts
from tests.serving.fleet import simulated as sim
from tests.serving.fleet.autoscaled import memory_folder
from tests.serving.fleet.scaled import Site


@pytest.fixture
def site(monkeypatch):
    with memory_folder() as folder:
        yield Site(folder, monkeypatch)


def test_hosts_go_out_drained_and_come_back_in_the_same_places(site):
    assert site.hosts(2, reason="night") == ("2 hosts take traffic in us-east: e3, e2 on standby.")
    assert site.taking == {"e0", "e1"} and site.on.journal.standby() == {
        "e2": "night",
        "e3": "night",
    }
    assert {site.driver.machines[name].edge for name in ("e2", "e3")} == {"drain"}
    assert site.hosts(3) == "3 hosts take traffic in us-east: e2 came in."
    assert site.taking == {"e0", "e1", "e2"} and site.standby == {"e3"}
    events = [one.event for one in site.on.journal.events() if one.host in ("e2", "e3")]
    assert [one for one in events if one in ("standby", "admitted")] == [
        "standby", "standby", "admitted",
    ]  # fmt: skip
    assert site.driver.machines["w0"].edge == "ready"
    site.served_well()


def test_what_is_as_ordered_is_not_touched(site):
    site.hosts(3)
    lines = len(site.on.journal.events())
    site.driver.changes.clear()
    assert site.hosts(3) == "no change: 3 hosts take traffic in us-east."
    assert site.instances(None) == "no change: every host has 1 instance of toy."
    assert site.driver.changes == [] and len(site.on.journal.events()) == lines


def test_a_plan_names_each_host_and_touches_none(site):
    site.hosts(2)
    site.driver.changes.clear()
    assert scale.plan_hosts(site.on, "us-east", 1) == ["e1: drained, on standby"]
    assert scale.plan_hosts(site.on, "us-east", 3) == [
        "e2: brought to production, proven, into traffic", "where one is not fit: e3",
    ]  # fmt: skip
    assert scale.plan_hosts(site.on, "us-east", 2) == [
        "no change: 2 hosts take traffic in us-east."
    ]
    assert scale.plan_instances(site.on, "toy", 2)[0] == "e0: 1 instance of toy, then 2"
    assert scale.plan_instances(site.on, "toy", 1) == [
        "no change: every host has 1 instance of toy."
    ]
    assert site.driver.changes == []


def test_a_host_on_standby_is_left_alone_and_brought_to_production_on_its_way_in(site):
    site.hosts(3)
    before = site.driver.machines["e3"].as_it_is()
    assert sim.act(site.driver, site.folder, "deploy", 3, "d3").kind == "done"
    assert site.driver.machines["e3"].as_it_is() == before
    assert site.standby == {"e3"} and site.on.journal.quarantined() == {}
    site.hosts(4)
    assert site.taking == {"e0", "e1", "e2", "e3"} and site.standby == set()
    assert site.driver.machines["e3"].answers(3)
    site.served_well()


@pytest.mark.parametrize("action", ["deploy", "heal", "rollback"])
def test_a_rollout_takes_a_host_out_that_a_killed_order_left_in(site, action):
    site.on.journal.record("standby", "host-9", host="e3", reason="night")
    version = {"deploy": 3, "heal": 2, "rollback": 1}[action]
    assert sim.act(site.driver, site.folder, action, version, "next").exit_code == 0
    assert site.driver.machines["e3"].edge == "maint"
    assert site.standby == {"e3"} and site.on.journal.quarantined() == {}


def person(site, name, act) -> None:
    site.order(name, act, "a person's reason")


@pytest.mark.parametrize(
    ("count", "region", "error", "sentence"),
    [
        (0, "us-east", FleetRefusal, "keeps one host in traffic.*fab scale --hosts 1 --region"),
        (
            5,
            "us-east",
            FleetRefusal,
            r"4 hosts in traffic and 0 on standby: 4 at most.*fab add HOST",
        ),
        (2, "us-north", FleetConfigError, "--region=us-north: the fleet has us-east, us-west"),
        (2, "", FleetConfigError, "--region=none"),
    ],
)
def test_a_number_that_cannot_be_is_refused_with_what_to_type(site, count, region, error, sentence):
    with pytest.raises(error, match=sentence):
        site.hosts(count, region)
    assert site.driver.changes == []


@pytest.mark.parametrize("act", [host_orders.quarantine, host_orders.drain])
def test_a_host_that_a_person_took_out_is_never_brought_in(site, act):
    person(site, "e3", act)
    with pytest.raises(FleetRefusal, match=r"3 hosts in traffic and 0 on standby.*reason: e3 \("):
        site.hosts(4)
    assert site.hosts(3).startswith("no change"), "and counts as none that takes traffic"
    site.hosts(2)
    person(site, "e2", act)  # a person's word about a host on standby
    with pytest.raises(FleetRefusal, match="2 hosts in traffic and 0 on standby"):
        site.hosts(3)


def test_the_last_host_that_answers_stays_in_traffic(site):
    for name in ("e0", "e1", "e2"):
        site.driver.machines[name].alive = False
    with pytest.raises(FleetRefusal, match="e3 is the last host of us-east"):
        site.hosts(3)
    assert site.driver.machines["e3"].edge == "ready" and site.standby == set()


def test_an_edge_that_does_not_answer_leaves_all_as_it_is(site):
    site.driver.edges["us-east"].reachable = False
    with pytest.raises(FleetError, match="an edge of us-east does not answer"):
        site.hosts(2)
    assert site.driver.changes == [] and site.standby == set()


@pytest.mark.parametrize("fault", ["answers wrong", "unreachable", "Triton is down for good"])
def test_a_host_that_is_not_fit_stays_out_and_the_next_one_comes_in(site, fault):
    site.hosts(2)
    machine = site.driver.machines["e2"]
    if fault == "answers wrong":
        machine.dead = machine.doomed = {2}
    elif fault == "unreachable":
        machine.reachable = False
    else:
        machine.alive, machine.doomed = False, {2}
    with pytest.raises(
        ScaledInPart,
        match=r"3 hosts take traffic in us-east, 3 are ordered.*Not fit, and out of it: e2",
    ) as raised:
        site.hosts(3)
    assert raised.value.exit_code == INCOMPLETE
    assert site.taking == {"e0", "e1", "e3"} and machine.edge != "ready"
    with pytest.raises((ScaledInPart, FleetRefusal)):
        site.hosts(4)
    assert site.taking == {"e0", "e1", "e3"}
    site.served_well()


def test_a_host_whose_edge_never_sees_it_up_does_not_stay_half_in(site, monkeypatch):
    site.hosts(3)
    set_edge = site.driver.set_edge

    def late(host, state):
        set_edge(host, state)
        raise FleetError(f"{host.name} is not up at its edge after 120 s.")

    monkeypatch.setattr(site.driver, "set_edge", late)
    with pytest.raises(ScaledInPart, match="e3: e3 is not up at its edge"):
        site.hosts(4)
    assert site.driver.machines["e3"].edge == "maint" and site.standby == {"e3"}


def test_a_host_that_a_person_takes_out_meanwhile_is_not_brought_in(site, monkeypatch):
    site.hosts(2)
    healed = scale.healed

    def quarantined_meanwhile(on, host, *more):
        if host == "e2":
            person(site, "e2", host_orders.quarantine)
        return healed(on, host, *more)

    monkeypatch.setattr(scale, "healed", quarantined_meanwhile)
    with pytest.raises(ScaledInPart, match="e2 is not on standby any more"):
        site.hosts(3)
    assert site.taking == {"e0", "e1", "e3"} and "e2" in site.on.journal.quarantined()


def test_a_running_rollout_keeps_scale_out_by_the_lock(site):
    with hold(site.folder, "deploy toy/3", 30):
        for act in (lambda: site.hosts(2), lambda: site.instances(2)):
            with pytest.raises(Locked, match="deploy toy/3"):
                act()
    assert site.driver.changes == []


def test_an_open_rollout_is_ended_first(site):
    site.driver.arm(12, kill=True)
    with pytest.raises(sim.Killed):
        sim.act(site.driver, site.folder, "deploy", 3, "killed")
    site.driver.arm(None)
    for act in (lambda: site.hosts(2), lambda: site.instances(2)):
        with pytest.raises(FleetRefusal, match="fab rollback --model toy") as raised:
            act()
        assert raised.value.exit_code == REFUSED
    assert sim.act(site.driver, site.folder, "deploy", 3, "again").kind == "done"
    assert site.hosts(3).endswith("e3 on standby.")


def test_a_host_that_a_killed_order_left_in_traffic_comes_in_first():
    region = sim.fleet(4, 0).regions[0]
    edges = {"e0": "ready", "e1": "drain", "e2": "ready", "e3": "drain"}
    moves = choose_hosts(region, 2, edges, {"e1", "e2", "e3"}, ())
    assert [host.name for host in moves.reserve[: moves.missing]] == ["e2"] and moves.out == ()


NAMES = st.sets(st.sampled_from(["e0", "e1", "e2", "e3"]))


@given(
    wanted=st.integers(-1, 6),
    edges=st.fixed_dictionaries(
        {f"e{n}": st.sampled_from(["ready", "drain", "maint"]) for n in range(4)}
    ),
    standby=NAMES,
    quarantined=NAMES,
)
def test_the_choice_gives_the_number_and_takes_nobody_else(wanted, edges, standby, quarantined):
    standby = standby - quarantined  # the journal's last word about a host is one
    region = sim.fleet(4, 0).regions[0]
    others = {name for name, edge in edges.items() if edge != "ready" and name not in standby}
    try:
        moves = choose_hosts(region, wanted, edges, standby, quarantined)
    except FleetRefusal:
        most = len(set(edges) - others - quarantined)
        assert wanted < 1 or wanted > most
        return
    out, into = {h.name for h in moves.out}, {h.name for h in moves.reserve[: moves.missing]}
    ready = {name for name, edge in edges.items() if edge == "ready"} - quarantined
    assert len((ready - out) | into) == wanted >= 1
    assert not out & into and into <= standby
    assert not (out | into) & (others | quarantined)
