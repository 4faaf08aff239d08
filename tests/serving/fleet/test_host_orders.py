"""Hosts out of traffic and back by a person's word, and the words that `fab` takes for hosts."""

from __future__ import annotations

import time

import pytest

from serving.fleet.cli.task_output import refuse_core_hosts
from serving.fleet.errors import FleetConfigError, FleetError, FleetRefusal
from serving.fleet.rollout import host_orders
from serving.fleet.rollout.host_orders import HostOrder
from serving.fleet.rollout.journal import Journal
from serving.fleet.rollout.lease import hold
from serving.fleet.rollout.production import point_alias
from serving.fleet.rollout.rollout_config import RolloutConfig, host_count
from serving.fleet.rollout.waves import waves
from tests.serving.fleet import simulated as sim


@pytest.fixture
def driver(folder):
    made = sim.serving_fleet(())
    sim.act(made, folder, "deploy", 1, "first")
    sim.act(made, folder, "deploy", 2, "second")
    return made


def give(driver, folder, name: str, act, *more):
    with hold(folder, "host", 30) as lease:
        driver.fence = max(driver.fence, lease.fence)
        host = driver.fleet.host(name)
        order = HostOrder(host, [(driver, 2)], Journal(folder), lease, lambda *_: None)
        return act(order, *more)


def test_a_quarantined_host_is_left_alone_until_it_is_undrained(driver, folder):
    driver.machines["e1"].reachable = False
    give(driver, folder, "e1", host_orders.quarantine, "its disk is odd")
    assert driver.machines["e1"].edge == "maint"
    assert Journal(folder).quarantined() == {"e1": "its disk is odd"}
    assert sim.act(driver, folder, "deploy", 3, "r3").kind == "done", "it blocks nobody"
    driver.machines["e1"].reachable = True
    assert driver.machines["e1"].serving == (1, 2), "and nobody touched it"
    with pytest.raises(FleetError, match="not fit for traffic"):
        give(driver, folder, "e1", host_orders.undrain, lambda: "it lacks toy/3", "")
    assert driver.machines["e1"].edge == "maint"
    give(driver, folder, "e1", host_orders.undrain, lambda: "", "a new disk")
    assert driver.machines["e1"].edge == "ready" and Journal(folder).quarantined() == {}


@pytest.mark.parametrize("act", [host_orders.quarantine, host_orders.drain, host_orders.restart])
def test_the_last_host_of_a_region_stays_in_traffic(driver, folder, act):
    driver.machines["w1"].edge = "maint"
    with pytest.raises(FleetRefusal, match="last host of us-west"):
        give(driver, folder, "w0", act, "why")
    assert driver.machines["w0"].edge == "ready" and driver.machines["w0"].restarts == 0


@pytest.mark.parametrize("edge", ["ready", "maint"])
def test_a_restart_gives_the_host_back_as_it_was(driver, folder, edge):
    driver.machines["e0"].edge = edge
    driver.machines["e0"].dead = {2}
    driver.outages.clear()
    give(driver, folder, "e0", host_orders.restart, "a dead stub")
    assert driver.machines["e0"].restarts == 1 and driver.machines["e0"].edge == edge
    assert driver.machines["e0"].answers(2) and driver.outages == []


def test_a_restarted_host_that_answers_wrong_stays_out_of_traffic(driver, folder):
    driver.machines["e0"].doomed = {2}
    with pytest.raises(FleetError, match="differs"):
        give(driver, folder, "e0", host_orders.restart, "why")
    assert driver.machines["e0"].edge == "maint"


@pytest.mark.parametrize("words", [["-H", "a,b", "plan"], ["-Ha", "deploy"], ["--hosts=a", "heal"]])
def test_fabs_own_hosts_are_refused_with_the_right_way(words):
    with pytest.raises(FleetConfigError, match="fab deploy --hosts e1,w0"):
        refuse_core_hosts(words)


def test_the_hosts_of_a_task_are_its_own():
    refuse_core_hosts(["deploy", "--hosts", "e1"])


def test_a_registry_that_hangs_is_not_waited_for(monkeypatch):
    from serving import registry

    monkeypatch.setattr(registry.Registry, "set_alias", lambda *_: time.sleep(30))
    began = time.monotonic()
    assert "not set in 0.2 s" in point_alias("http://hung", "toy", 2, None, 0.2)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(("size", "count"), [(3, 3), ("25%", 3), ("1%", 1), ("100%", 12)])
def test_a_size_is_a_number_or_a_percent_rounded_up(size, count):
    assert host_count(size, 12) == count


@pytest.mark.parametrize("size", [0, "0%", "101%", "some", "-1"])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(FleetConfigError, match=r"25% of them"):
        RolloutConfig(waves=(size,))


@pytest.mark.parametrize(
    "options",
    [{"steps": ()}, {"steps": (10, 50)}, {"steps": (50, 10, 100)}, {"approvals": (20,)}],
)
def test_steps_that_do_not_rise_to_all_are_refused(options):
    with pytest.raises(FleetConfigError, match=r"rollout\.(steps|approvals)"):
        RolloutConfig(**options)


def test_waves_grow_as_configured_and_never_take_a_whole_region():
    from serving.fleet.rollout.records import Before
    from serving.fleet.rollout.rollout_plan import Change

    fleet = sim.fleet(6, 6)
    before = Before((1,), None, "ready")
    changes = [Change(host, before, (2,), "", (1, 2)) for host in fleet.hosts]
    config = RolloutConfig(
        waves=(2, "50%"), parallel=12, max_unavailable="100%", order=("us-west",)
    )
    made = waves(fleet, changes, config)
    assert [len(wave) for wave in made] == [1, 2, 6, 3]
    assert {change.host.region for wave in made[:2] for change in wave} == {"us-west"}
    for wave in made:
        for region in fleet.regions:
            assert sum(change.host.region == region.name for change in wave) < 6
