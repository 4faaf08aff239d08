"""Proposals of a placement: laws of the first fit, memory as hosts show it, lines for people."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from conf import ConfigError, compose
from conf.site_placement import ModelPlacement, check_placement, hosts_of
from serving.fleet.capacity.model_memory import TritonMemory, model_memory
from serving.fleet.capacity.placement import HostRoom, ModelDemand, hosts_needed, place
from serving.fleet.capacity.proposal import moves, placement_yaml, proposed, steps
from serving.fleet.cli import place as place_command
from serving.fleet.cli.place import placement_lines, propose_placement
from serving.fleet.errors import FleetConfigError, FleetRefusal
from tests.serving.fleet import simulated

REGIONS = ("us-east", "us-west")
CARRIED = 0.6


@st.composite
def fleets(draw, hosts_now: bool = True):
    """Models and hosts of two regions: some fit easily, some not at all."""
    hosts = [
        HostRoom(f"{region[3]}{n}", region, draw(st.integers(1, 40)), CARRIED)
        for region in REGIONS[: draw(st.integers(1, 2))]
        for n in range(draw(st.integers(1, 5)))
    ]
    now = st.lists(st.sampled_from([one.name for one in hosts]), unique=True).map(tuple)
    models = [
        ModelDemand(
            name, draw(st.integers(0, 20)),
            {region: draw(st.floats(0, 1.5)) for region in REGIONS},
            draw(st.sampled_from(["shared", "shared", "alone"])),
            draw(st.integers(1, 2)), draw(now) if hosts_now else (),
        )
        for name in "abcd"[: draw(st.integers(1, 4))]
    ]  # fmt: skip
    return models, hosts


def settled(models, hosts):
    """The models with the hosts that they were given; skips a fleet without room."""
    found = place(models, hosts)
    assume(not found.missing)
    return [replace(model, hosts=found.hosts[model.name]) for model in models]


def broken(models, hosts) -> list[str]:
    """Each law that a placement breaks, as a sentence."""
    found = []
    for host in hosts:
        on = [model for model in models if host.name in model.hosts]
        if sum(model.memory_bytes for model in on) > host.memory_bytes:
            found.append(f"{host.name} is above its memory")
        load = sum(
            model.load[host.region]
            / sum(1 for one in hosts if one.region == host.region and one.name in model.hosts)
            for model in on
        )
        if load > host.load + 1e-6:
            found.append(f"{host.name} is above its load")
        if len(on) > 1 and any(model.isolation == "alone" for model in on):
            found.append(f"{host.name} is not alone")
    for model, region in product(models, {host.region for host in hosts}):
        own = [one for one in hosts if one.region == region and one.name in model.hosts]
        if len(own) < hosts_needed(model, region, CARRIED):
            found.append(f"{model.name} has too few hosts in {region}")
    return found


@given(drawn=fleets())
def test_no_host_is_above_its_memory_or_load_and_alone_is_alone(drawn):
    models, hosts = drawn
    assert broken(settled(models, hosts), hosts) == []


@given(drawn=fleets())
def test_a_placement_that_stands_is_not_moved_and_a_new_host_takes_nothing_away(drawn):
    models, hosts = drawn
    there = settled(models, hosts)
    assert place(there, hosts).hosts == {one.name: one.hosts for one in there}
    more = [*hosts, HostRoom("new", hosts[0].region, 100, CARRIED)]
    assert place(there, more).hosts == {one.name: one.hosts for one in there}
    assert place(list(reversed(there)), hosts).hosts == {one.name: one.hosts for one in there}


@given(drawn=fleets())
def test_whoever_stands_well_stays_when_another_model_comes(drawn):
    """A model that fits beside the others moves none of them."""
    models, hosts = drawn
    there = settled(models, hosts)
    small = ModelDemand("small", 0, dict.fromkeys(REGIONS, 0.0))
    found = place([*there, small], hosts)
    if not found.missing and all(
        any(
            one.region == region and not any(
                one.name in model.hosts and model.isolation == "alone" for model in there)
            for one in hosts
        )
        for region in {one.region for one in hosts}
    ):  # fmt: skip
        assert {name: found.hosts[name] for name in (one.name for one in there)} == {
            one.name: one.hosts for one in there
        }


@given(drawn=fleets(hosts_now=False))
def test_one_model_is_refused_only_where_there_is_no_room(drawn):
    (model, *_), hosts = drawn
    possible = all(
        any(
            sum(
                model.memory_bytes <= one.memory_bytes
                and model.load[region] / count <= one.load * (1 + 1e-9)
                for one in hosts if one.region == region
            ) >= count
            for count in range(hosts_needed(model, region, CARRIED), len(hosts) + 1)
        )
        for region in {one.region for one in hosts}
    )  # fmt: skip
    assert bool(place([model], hosts).missing) != possible


HOSTS = [HostRoom(name, "us-east", 10 << 30, CARRIED) for name in ("e0", "e1", "e2")]
EVERYWHERE = ("e0", "e1", "e2")


def test_models_that_fit_everywhere_stay_everywhere():
    models = [ModelDemand(name, 3 << 30, {}, hosts=EVERYWHERE) for name in "abc"]
    found = place(models, HOSTS)
    assert found.hosts == dict.fromkeys("abc", EVERYWHERE)
    assert proposed(EVERYWHERE, found.hosts, dict.fromkeys("abc", "shared"), {}) == {}


def test_a_model_that_shall_be_alone_pushes_the_others_aside():
    big = ModelDemand("big", 8 << 30, {}, "alone")
    small = ModelDemand("small", 1 << 30, {}, hosts=EVERYWHERE)
    found = place([small, big], HOSTS)
    assert found.hosts == {"big": ("e0",), "small": ("e1", "e2")}
    entries = proposed(EVERYWHERE, found.hosts, {"big": "alone", "small": "shared"}, {})
    assert entries == {"big": ModelPlacement(("e0",), "alone")}, "the rest follows from it"


def test_a_new_model_takes_free_hosts_before_those_of_others():
    small = ModelDemand("small", 1 << 30, {}, hosts=("e0",))
    for big in (ModelDemand("big", 8 << 30, {}, "alone"), ModelDemand("big", 10 << 30, {})):
        found = place([small, big], HOSTS)
        assert found.hosts == {"small": ("e0",), "big": ("e1",)}


def test_load_asks_for_more_hosts_than_least_does():
    found = place([ModelDemand("a", 1, {"us-east": 1.5})], HOSTS)
    assert found.hosts == {"a": EVERYWHERE}


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (ModelDemand("a", 11 << 30), "a needs 1 of the 3 hosts of us-east, 11 GiB on each"),
        (ModelDemand("a", 1, {"us-east": 2.0}), "a needs 4 of the 3 hosts of us-east"),
        (ModelDemand("a", 1, {}, "alone", least=4), "of us-east with no other model"),
    ],
)
def test_a_refusal_has_what_is_missing(model, sentence):
    (found,) = place([model], HOSTS).missing
    assert sentence in found and "e0 10 GiB free and no model on it" in found


def test_the_memory_of_a_model_is_that_of_the_host_where_it_is_alone():
    packages = {"a": 100, "b": 300}
    both = TritonMemory("e0", 2000, {"a": 1, "b": 1})
    found = model_memory("a", [both, TritonMemory("e1", 900, {"a": 2})], packages)
    assert (found.memory_bytes, found.basis) == (900, "measured on e1")
    found = model_memory("b", [both], packages)
    assert found.memory_bytes == 1500 and "on e0 for 2 models" in found.basis
    assert model_memory("a", [TritonMemory("e1", 10, {"a": 1})], packages).memory_bytes == 100
    found = model_memory("a", [TritonMemory("e1", 900, {"b": 1})], packages)
    assert found.memory_bytes == 200 and "no host serves it" in found.basis


def test_the_lines_are_yaml_of_the_site_and_the_steps_have_an_order():
    import yaml

    before = {"old": ModelPlacement(("e0",))}
    after = {"big": ModelPlacement(("e0", "e1"), "alone")}
    text = "\n".join(placement_yaml(after))
    assert yaml.safe_load(text) == {
        "placement": {"big": {"isolation": "alone", "hosts": ["e0", "e1"]}}
    }
    assert placement_yaml({}) == ["placement: {}"]
    moved = moves(["big", "old"], EVERYWHERE, before, after)
    assert [(one.comes_to, one.leaves) for one in moved] == [((), ("e2",)), (("e2",), ("e0",))]
    assert [step.split(". ")[0] for step in steps(moved)] == ["1", "2", "3", "4"]
    order = " ".join(steps(moved))
    assert order.index("heal --model old") < order.index("fab edges --roll")
    assert order.index("fab edges --roll") < order.index("heal --model big")
    assert steps(moves(["big"], EVERYWHERE, after, after)) == ["Nothing moves."]


@given(drawn=fleets())
def test_what_is_proposed_is_a_valid_placement_with_the_same_hosts(drawn):
    models, hosts = drawn
    there = settled(models, hosts)
    names = [one.name for one in hosts]
    isolation = {one.name: one.isolation for one in models}
    entries = proposed(names, {one.name: one.hosts for one in there}, isolation, {})
    check_placement(entries, {one.name: one.region for one in hosts})
    for one in there:
        assert set(hosts_of(entries, one.name, names)) == set(one.hosts)


@pytest.fixture
def fleet_of(monkeypatch):
    """`fab place` on a fleet of four hosts with `memory` bytes each, which serve `serving`."""

    def run(serving: dict[str, dict[str, int]], *, placement=None, overrides=(), **isolation):
        whole = replace(simulated.fleet(), placement=placement or {})
        sizes = {"big": 4 << 30, "small": 1 << 30}
        entries = [SimpleNamespace(model=name) for name in sizes]
        journal = SimpleNamespace(read_ledger=lambda: SimpleNamespace(entries=entries))
        on = SimpleNamespace(
            fleet=whole, journal=journal, store=None, prometheus_url="", passwords=None
        )
        monkeypatch.setattr(place_command, "controls", lambda config: on)
        monkeypatch.setattr(
            place_command, "_manifest",
            lambda on, name: SimpleNamespace(files=[SimpleNamespace(bytes=sizes[name])], gates=()),
        )  # fmt: skip
        monkeypatch.setattr(
            place_command, "_triton_memory",
            lambda on, host: TritonMemory(host.name, 6 << 30, serving[host.name])
            if host.name in serving else f"{host.name} does not answer.",
        )  # fmt: skip
        given = ["place.host_memory_mib=20480", "place.memory_share=0.5", *overrides]
        found = propose_placement(compose("place", given), **isolation)
        return found, placement_lines(found)

    return run


BOTH = {name: {"big": 1, "small": 1} for name in ("e0", "e1", "w0", "w1")}


def test_models_that_fit_are_left_on_every_host_with_the_reason(fleet_of):
    found, lines = fleet_of(BOTH)
    assert found.placement == {} and lines[-2:] == [
        "placement: {}", "# As configured: nothing moves.",
    ]  # fmt: skip
    assert "big: shared; 4.8 GiB on each host (its part, by size, of 6 GiB on e0" in lines[0]
    assert "load not counted (no gate of the version in production measured" in lines[0]
    assert lines[0].endswith("; stays")


def test_a_model_that_shall_be_alone_gets_hosts_and_the_moves_are_in_order(fleet_of):
    found, lines = fleet_of(BOTH, alone="big")
    assert found.placement == {"big": ModelPlacement(("e0", "w0"), "alone")}
    assert {m.model: (m.comes_to, m.leaves) for m in found.moves} == {
        "big": ((), ("e1", "w1")), "small": ((), ("e0", "w0")),
    }  # fmt: skip
    assert "  big: {isolation: alone, hosts: [e0, w0]}" in lines
    assert lines[-1] == (
        "# 3. the hosts that a model left give up its memory: "
        "fab heal --model big; fab heal --model small"
    )
    again, said = fleet_of(BOTH, placement=found.placement)
    assert again.placement == found.placement and said[-1] == "# As configured: nothing moves."
    back, _ = fleet_of(BOTH, placement=found.placement, shared="big")
    assert back.placement["big"].isolation == "shared"


def test_a_host_that_cannot_be_read_is_a_note_and_hides_nothing(fleet_of):
    found, lines = fleet_of({name: BOTH[name] for name in ("e0", "w0", "w1")})
    assert lines[0] == "# e1 does not answer." and found.placement == {}


@pytest.mark.parametrize(
    ("given", "kind", "sentence"),
    [
        ({"alone": "bog"}, FleetConfigError, "--alone bog: no such model.*Nearest: big"),
        ({"overrides": ["place.host_memory_mib=0"]}, FleetConfigError,
         "memory of e0 is not known: .*place.host_memory_mib"),
        ({"overrides": ["place.least=0"]}, ConfigError, "least=0: must be at least 1"),
        ({"overrides": ["+place.memory_mib.big=20480"]}, FleetRefusal,
         "big needs 1 of the 2 hosts of us-east, 20 GiB on each"),
        ({"alone": "big,small", "overrides": ["place.least=2"]}, FleetRefusal,
         "There is no placement.*with no other model.*fab add"),
    ],
)  # fmt: skip
def test_what_cannot_be_placed_is_an_error_in_words(fleet_of, given, kind, sentence):
    with pytest.raises(kind, match=sentence):
        fleet_of(BOTH, **given)
