"""A host that left the site while an edge still sends it requests: no version is flipped for it."""

from __future__ import annotations

import pytest

from conf.errors import INCOMPLETE
from serving.fleet.errors import FleetRefusal
from serving.fleet.rollout.departed import departed_hosts
from serving.fleet.routing import Routing
from tests.serving.fleet import simulated as sim
from tests.serving.fleet.autoscaled import memory_folder


@pytest.fixture
def folder():
    with memory_folder() as path:
        yield path


@pytest.fixture
def driver(folder):
    """Version 2 in production, 1 warm; us-east's edge still has `e9`."""
    made = sim.serving_fleet(())
    for version in (1, 2):
        assert sim.act(made, folder, "deploy", version, f"d{version}").kind == "done"
    made.edges["us-east"].departed = {"e9"}
    made.changes.clear()
    return made


def test_a_deploy_is_refused_by_name_and_goes_on_when_the_edge_has_its_config(driver, folder):
    with pytest.raises(FleetRefusal, match=r"us-east to e9\..*Nothing was changed.*fab edges --ro"):
        sim.act(driver, folder, "deploy", 3, "d3")
    assert driver.changes == []
    driver.edges["us-east"].departed = set()
    assert sim.act(driver, folder, "deploy", 3, "d3").kind == "done"


@pytest.mark.parametrize(("action", "version"), [("rollback", 1), ("heal", 2)])
def test_an_emergency_shuts_it_out_before_any_edge_is_flipped_and_names_it(
    driver, folder, action, version
):
    end = sim.act(driver, folder, action, version, "now")
    assert end.exit_code == INCOMPLETE and "in maintenance there now" in end.stuck["e9"]
    assert driver.edges["us-east"].departed == set()
    assert all(edge.routing == Routing(version) for edge in driver.edges.values())
    routed = [n for n, one in enumerate(driver.changes) if one.startswith("route")]
    assert driver.changes.index("shut out e9") < min(routed, default=len(driver.changes))
    again = sim.act(driver, folder, action, version, "again")
    assert again.exit_code == 0 and not again.stuck


def test_where_it_is_the_only_one_in_traffic_it_stays_and_the_rollback_goes_on(driver, folder):
    for name in ("e0", "e1"):
        driver.machines[name].edge = "maint"
    end = sim.act(driver, folder, "rollback", 1, "now")
    assert end.exit_code == INCOMPLETE and "no other host: it was left so" in end.stuck["e9"]
    assert driver.edges["us-east"].departed == {"e9"}
    assert driver.edges["us-west"].routing == Routing(1)


def test_an_edge_that_refuses_holds_up_no_rollback(driver, folder):
    driver.arm(1)
    end = sim.act(driver, folder, "rollback", 1, "now")
    assert "could not be taken out: us-east: shut out failed" in end.stuck["e9"]
    assert all(edge.routing == Routing(1) for edge in driver.edges.values())


def test_hosts_of_the_site_are_none_that_left():
    hosts = sim.fleet().hosts
    here = {"us-east": frozenset({"e0", "e1", "w0"}), "us-west": frozenset()}
    assert departed_hosts(here, hosts) == {}
    assert departed_hosts({"us-east": frozenset({"e0", "e9"})}, hosts) == {"us-east": ["e9"]}
