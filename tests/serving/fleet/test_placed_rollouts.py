"""Models with hosts of their own in simulated fleets: hosts that they come to, and leave."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.errors import INCOMPLETE
from conf.site_placement import (
    ModelPlacement,
    check_placement,
    hosts_alone,
    hosts_of,
    peers_of_host,
)
from serving.fleet.cli.command import placed_selection
from serving.fleet.errors import FleetConfigError, FleetRefusal
from serving.fleet.inventory import Fleet, Host
from serving.fleet.rollout.journal import Journal
from serving.fleet.rollout.rollout_plan import Selection
from serving.fleet.routing import Routing
from tests.serving.fleet import simulated as sim

HERE = ("e0", "w0")
OUT = ("e1", "w1")
WHOLE = sim.fleet()


def placed(**models: ModelPlacement) -> Fleet:
    return replace(WHOLE, placement=models)


def names(fleet: Fleet) -> tuple[str, ...]:
    return tuple(host.name for host in fleet.hosts)


def outside(fleet: Fleet) -> tuple[Host, ...]:
    return tuple(host for host in WHOLE.hosts if host not in fleet.hosts)


@pytest.fixture
def driver(tmp_path: Path) -> sim.SimulatedDriver:
    """Version 2 in production on every host; the model's place is now `HERE`."""
    made = sim.serving_fleet(())
    assert sim.act(made, tmp_path, "deploy", 1, "first").kind == "done"
    assert sim.act(made, tmp_path, "deploy", 2, "second").kind == "done"
    made.fleet = placed(toy=ModelPlacement(HERE)).for_model("toy")
    made.arm(None)
    return made


def heal(driver: sim.SimulatedDriver, folder: Path, rollout: str = "h", **options):
    return sim.act(driver, folder, "heal", 2, rollout, outside=outside(driver.fleet), **options)


def has_toy(driver: sim.SimulatedDriver) -> list[str]:
    return [name for name, one in driver.machines.items() if one.serving or one.config]


@pytest.mark.parametrize(
    ("models", "model", "hosts"),
    [
        ({}, "toy", ("e0", "e1", "w0", "w1")),
        ({"toy": ModelPlacement(HERE)}, "toy", HERE),
        ({"toy": ModelPlacement(HERE)}, "other", ("e0", "e1", "w0", "w1")),
        ({"toy": ModelPlacement(HERE, "alone")}, "toy", HERE),
        ({"toy": ModelPlacement(HERE, "alone")}, "other", OUT),
    ],
)
def test_the_fleet_of_a_model_has_its_hosts_alone(models, model, hosts):
    found = placed(**models).for_model(model)
    assert names(found) == hosts and found.edges == WHOLE.edges


def test_a_region_without_a_host_for_a_model_is_an_error_in_words():
    fleet = placed(big=ModelPlacement(("e0", "e1", "w0"), "alone"))
    with pytest.raises(FleetConfigError, match=r"us-east has no host for toy.*site.placement.toy"):
        fleet.for_model("toy")


REGIONS = {"e0": "us-east", "e1": "us-east", "w0": "us-west"}


@pytest.mark.parametrize(
    ("models", "sentence"),
    [
        ({"a": ("e0",)}, "placement.a.hosts: has no host of us-west"),
        ({"a": ("e9", "w0")}, "there is no host e9. Nearest: e1, e0"),
        ({"a": ("e0", "e0", "w0")}, "has it already"),
        ({"a b": ("e0", "w0")}, "is not the name of a model"),
        ({"a": ()}, "has no host of us-east"),
    ],
)
def test_a_placement_that_cannot_be_is_refused(models, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_placement({name: ModelPlacement(hosts) for name, hosts in models.items()}, REGIONS)


def test_alone_is_alone_in_whatever_order_it_is_written():
    big, small = ModelPlacement(("e0", "w0"), "alone"), ModelPlacement(("e0", "e1", "w0"))
    for models in ({"big": big, "small": small}, {"small": small, "big": big}):
        with pytest.raises(ValueError, match=r"placement.small.hosts: has e0, where big is to be"):
            check_placement(models, REGIONS)
    check_placement({"big": replace(big, isolation="shared"), "small": small}, REGIONS)
    check_placement({}, REGIONS)


@st.composite
def placements(draw):
    """Valid placements of up to three models on eight hosts, by `check_placement`'s own rule."""
    hosts = [f"h{n}" for n in range(8)]
    made: dict[str, ModelPlacement] = {}
    for name in "abc":
        free = [host for host in hosts if host not in hosts_alone(made)]
        if not free or not draw(st.booleans()):
            continue
        own = draw(st.lists(st.sampled_from(free), min_size=1, unique=True))
        taken = {host for one in made.values() for host in one.hosts}
        alone = not taken & set(own) and draw(st.booleans())
        made[name] = ModelPlacement(tuple(own), "alone" if alone else "shared")
    check_placement(made, dict.fromkeys(hosts, "us-east"))
    return made, hosts


@given(drawn=placements())
def test_a_host_that_is_alone_has_one_model_and_its_peers_have_what_it_has(drawn):
    placement, hosts = drawn
    for host in hosts:
        models = [m for m in (*placement, "unplaced") if host in hosts_of(placement, m, hosts)]
        if host in hosts_alone(placement):
            assert len(models) == 1
        groups = peers_of_host(placement, host, hosts)
        assert groups, "there is always somebody to count"
        expected = {frozenset(hosts_of(placement, m, hosts)) - {host} for m in models}
        assert set(groups) == expected


def test_a_heal_takes_the_model_out_of_the_hosts_that_it_left(driver, tmp_path):
    done = heal(driver, tmp_path)
    assert (done.kind, set(done.hosts)) == ("done", set(OUT))
    assert has_toy(driver) == list(HERE)
    assert {edge.routing for edge in driver.edges.values()} == {Routing(2)}
    assert driver.outages == []
    warm = Journal(tmp_path).warm("toy")
    assert all(warm[name] == () for name in OUT), "nothing there is a way back any more"
    assert all(2 in warm[name] for name in HERE)
    driver.arm(None)
    assert heal(driver, tmp_path, "again").kind == "unchanged"


def test_the_model_stays_where_an_edge_still_sends_requests(driver, tmp_path):
    driver.receiving = {"e1"}
    done = heal(driver, tmp_path)
    assert (done.exit_code, list(done.stuck)) == (INCOMPLETE, ["e1"])
    assert "an edge still sends it requests" in done.stuck["e1"] and "fab edges --roll" in str(done)
    assert has_toy(driver) == ["e0", "e1", "w0"]
    driver.receiving = set()
    assert heal(driver, tmp_path, "again").kind == "done"
    assert has_toy(driver) == list(HERE)


def test_a_heal_of_some_hosts_and_a_quarantined_one_touch_no_other(driver, tmp_path):
    assert heal(driver, tmp_path, selection=Selection(only=frozenset({"e1"}))).kind == "done"
    assert has_toy(driver) == ["e0", "w0", "w1"]
    Journal(tmp_path).record("quarantined", "q", host="w1", reason="its disk")
    heal(driver, tmp_path, "again")
    assert has_toy(driver) == ["e0", "w0", "w1"]


@pytest.mark.parametrize("late", [False, True])
def test_a_heal_that_is_killed_anywhere_is_ended_by_the_next(driver, tmp_path, late):
    for number in range(1, 40):
        for name in OUT:
            driver.machines[name].serve((1, 2))
            driver.machines[name].config = driver.machines["e0"].config
        driver.arm(number, late=late, kill=True)
        try:
            heal(driver, tmp_path, f"k{number}")
        except sim.Killed:
            pass
        else:
            assert number > 4, "there was something to kill"
            return
        driver.arm(None)
        assert heal(driver, tmp_path, f"h{number}").kind in ("done", "unchanged")
        assert has_toy(driver) == list(HERE) and driver.outages == []
    raise AssertionError("a heal has no end")


def test_a_host_that_is_new_in_the_placement_is_brought_by_a_heal(driver, tmp_path):
    heal(driver, tmp_path)
    driver.fleet = placed(toy=ModelPlacement((*HERE, "e1"))).for_model("toy")
    assert heal(driver, tmp_path, "wider").kind == "done"
    assert has_toy(driver) == ["e0", "e1", "w0"] and driver.machines["e1"].answers(2)


def test_a_deployment_goes_to_the_hosts_of_the_model_alone(driver, tmp_path):
    heal(driver, tmp_path)
    assert sim.act(driver, tmp_path, "deploy", 3, "third").kind == "done"
    assert has_toy(driver) == list(HERE)
    assert all(driver.machines[name].answers(3) for name in HERE)


def test_a_deployment_waits_for_edges_that_send_requests_elsewhere(driver, tmp_path):
    driver.receiving = {"e1"}
    before = driver.snapshot()
    with pytest.raises(FleetRefusal, match=r"still sends requests for toy to e1.*fab edges --roll"):
        sim.act(driver, tmp_path, "deploy", 3, "third", outside=outside(driver.fleet))
    assert driver.snapshot() == before and not driver.changes


def test_a_rollout_that_is_open_on_a_host_that_the_model_left_is_ended_first(tmp_path):
    driver = sim.serving_fleet((1,))
    assert sim.act(driver, tmp_path, "deploy", 1, "first").kind == "done"
    driver.arm(6, kill=True)
    with pytest.raises(sim.Killed):
        sim.act(driver, tmp_path, "deploy", 2, "second")
    touched = set(Journal(tmp_path).open_rollout("toy").touched)
    assert touched
    driver.arm(None)
    rest = tuple(name for name in names(WHOLE) if name not in touched)
    driver.fleet = placed(toy=ModelPlacement(rest)).for_model("toy")
    with pytest.raises(FleetRefusal, match=r"has no place any more. End it first: fab heal"):
        sim.act(driver, tmp_path, "deploy", 2, "third")
    healed = sim.act(driver, tmp_path, "heal", 1, "healed", outside=outside(driver.fleet))
    assert healed.kind == "done" and has_toy(driver) == list(rest)
    assert sim.act(driver, tmp_path, "deploy", 2, "fourth").kind == "done"
    assert has_toy(driver) == list(rest) and driver.outages == []


@pytest.mark.parametrize(
    ("only", "left"), [((), ()), (("e0",), ("e0",)), (("e0", "e1"), ("e0",)), (("e1",), None)]
)
def test_hosts_that_are_named_are_those_of_the_model(only, left):
    fleet = placed(toy=ModelPlacement(HERE)).for_model("toy")
    chosen = Selection(only=frozenset(only))
    if left is None:
        with pytest.raises(FleetConfigError, match=r"toy has no place on e1.*on e0, w0"):
            placed_selection(chosen, fleet, "toy")
    else:
        assert placed_selection(chosen, fleet, "toy").only == frozenset(left)
