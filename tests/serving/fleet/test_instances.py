"""The instances of a model on a simulated fleet: the number ordered on every host, old or new."""

from __future__ import annotations

import pytest

from serving.fleet.errors import FleetConfigError, FleetError, FleetRefusal
from serving.fleet.rollout.instances import ScaledInPart
from serving.triton import model_config
from tests.serving.fleet import simulated as sim
from tests.serving.fleet.autoscaled import memory_folder
from tests.serving.fleet.scaled import Site


@pytest.fixture
def site(monkeypatch):
    with memory_folder() as folder:
        yield Site(folder, monkeypatch)


def test_every_host_has_the_instances_and_later_versions_keep_them(site):
    assert site.instances(3) == "3 instances of toy on each of 5 hosts; 5 were changed."
    assert site.counts == {(3, 3)} and site.on.journal.instances("toy") == 3
    assert "drain" not in {one.split()[0] for one in site.driver.changes}
    assert sim.act(site.driver, site.folder, "deploy", 3, "d3").kind == "done"
    assert site.counts == {(3, 3)}
    assert sim.act(site.driver, site.folder, "deploy", 3, "d3").kind == "unchanged"
    assert sim.act(site.driver, site.folder, "rollback", 2, "r2").kind == "done"
    assert site.counts == {(3, 3)}
    assert site.instances(None) == "1 instance of toy on each of 5 hosts; 5 were changed."
    assert site.counts == {(1, 1)} and site.on.journal.instances("toy") is None
    site.served_well()


@pytest.mark.parametrize("loaded", [1, 2])
def test_a_heal_gives_back_the_instances_that_a_host_lost(site, loaded):
    site.instances(2)
    machine = site.driver.machines["e1"]
    machine.scaled, machine.loaded = None, loaded
    machine.config = model_config.with_instances(machine.config, 1)
    assert site.heal().hosts == ("e1",)
    assert site.counts == {(2, 2)}
    assert site.heal().kind == "unchanged"
    site.served_well()


def test_a_host_on_standby_gets_the_instances_when_it_comes_in(site):
    site.hosts(3)
    site.instances(2)
    assert site.driver.machines["e3"].loaded == 1
    site.hosts(4)
    assert site.counts == {(2, 2)}


@pytest.mark.parametrize("count", [0, 65, -1])
def test_a_number_of_instances_out_of_bounds_is_refused(site, count):
    with pytest.raises(FleetConfigError, match="1 to 64, or default"):
        site.instances(count)
    assert site.driver.changes == []


def test_more_instances_than_one_host_takes_are_refused_before_any_has_them(site):
    site.driver.machines["w0"].max_instances = 2
    with pytest.raises(FleetRefusal, match="w0 takes 2 instances of a model at most"):
        site.instances(3)
    assert site.driver.changes == [] and site.on.journal.instances("toy") is None
    assert site.instances(2).startswith("2 instances")


def test_where_a_host_fails_all_go_back_to_the_number_before(site):
    site.instances(2)
    site.driver.arm(8)  # the third host's serve
    with pytest.raises(FleetError, match="serve failed Every host has as many") as raised:
        site.instances(4)
    assert not isinstance(raised.value, ScaledInPart)
    assert site.counts == {(2, 2)} and site.on.journal.instances("toy") == 2
    site.served_well()


def test_a_host_that_cannot_be_reached_is_named_and_healed_later(site):
    site.driver.machines["e1"].reachable = False
    with pytest.raises(ScaledInPart, match=r"not on e1: e1 does not answer.*fab heal --model toy"):
        site.instances(2)
    assert site.driver.machines["e2"].loaded == 2
    site.driver.machines["e1"].reachable = True
    site.heal()
    assert site.counts == {(2, 2)}


def emptied(site: Site, name: str) -> None:
    """Another machine in the host's place: it has nothing, and its programs are new."""
    site.driver.machines[name] = sim.SimulatedHost((), None)


@pytest.mark.parametrize("version", [2, 3])
def test_a_deploy_gives_a_fresh_host_the_instances_that_were_ordered(site, version):
    site.instances(3)
    emptied(site, "e1")
    site.driver.machines["e1"].edge = "maint"
    site.driver.changes.clear()
    assert sim.act(site.driver, site.folder, "deploy", version, "next").kind == "done"
    assert site.counts == {(3, 3)}
    own = [one.split()[0] for one in site.driver.changes if one.endswith(" e1")]
    assert own.index("scale") < own.index("serve"), "no process more than ordered is ever begun"
    healed = sim.act(site.driver, site.folder, "heal", version, "healed")
    assert (own.count("serve"), healed.kind, healed.hosts) == (1, "unchanged", ())


def test_a_first_deploy_of_a_model_has_the_instances_that_a_host_took_over(site):
    """A number that was left on a host is not the model's: what is ordered now is."""
    site.driver.machines["e1"].scaled = 4
    emptied(site, "e1")
    site.driver.machines["e1"].scaled = 4
    assert sim.act(site.driver, site.folder, "deploy", 3, "d3").kind == "done"
    assert site.counts == {(1, 1)}


def test_a_deploy_typed_again_sees_a_host_with_another_number(site):
    site.instances(2)
    machine = site.driver.machines["e2"]
    machine.scaled, machine.loaded = None, 1
    machine.config = model_config.with_instances(machine.config, 1)
    assert sim.act(site.driver, site.folder, "deploy", 2, "again").kind == "done"
    assert site.counts == {(2, 2)}
    assert sim.act(site.driver, site.folder, "deploy", 2, "once more").kind == "unchanged"


def test_a_fresh_host_that_takes_fewer_than_are_ordered_is_refused_by_the_plan(site):
    site.instances(3)
    emptied(site, "e1")
    site.driver.machines["e1"].max_instances = 2
    site.driver.changes.clear()
    with pytest.raises(FleetRefusal, match=r"e1 takes 2 instances.*--instances 2, or raise"):
        sim.act(site.driver, site.folder, "deploy", 3, "d3")
    assert site.driver.changes == []
    site.driver.machines["e1"].max_instances = 3
    assert sim.act(site.driver, site.folder, "deploy", 3, "d3").kind == "done"
