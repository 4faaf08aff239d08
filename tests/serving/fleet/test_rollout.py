"""The walk through the fleet, with every step failing in turn, on a simulated fleet."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.fleet.errors import FleetError
from serving.fleet.rollout import rollout_plan as planning
from serving.fleet.rollout.journal import Journal
from serving.fleet.rollout.lease import hold
from serving.fleet.rollout.rollout_config import Outcome
from serving.fleet.routing import Routing
from tests.serving.fleet import simulated as sim
from tests.serving.fleet.journals import folder_in_memory


def deploy(driver, folder: Path, version: int, rollout: str = "r1", **options) -> Outcome:
    return sim.act(driver, folder, "deploy", version, rollout, **options)


def serving(driver) -> set[tuple[int, ...]]:
    return {machine.serving for machine in driver.machines.values()}


@pytest.mark.parametrize("strategy", ["load", "restart"])
def test_every_host_ends_with_the_new_version_and_the_one_before(folder, strategy):
    driver = sim.serving_fleet((1,))
    assert deploy(driver, folder, 2, strategy=strategy).kind == "done"
    assert serving(driver) == {(1, 2)}
    assert {machine.edge for machine in driver.machines.values()} == {"ready"}
    assert driver.outages == [] and driver.unproven == []
    assert {edge.routing for edge in driver.edges.values()} == {Routing(2)}
    for machine in driver.machines.values():
        assert planning.model_config.versions_in(machine.config) == (1, 2)


def test_the_canary_is_whole_before_any_other_host_is_touched(folder):
    driver = sim.serving_fleet((1,))
    deploy(driver, folder, 2)
    changes = [change for change in driver.changes if not change.startswith("stage")]
    first_other = next(n for n, change in enumerate(changes) if not change.endswith("e0"))
    whole = ["install e0", "serve e0", "check e0", "check e0"]
    assert changes[:first_other] == whole, "its new version and the one before were proven"
    assert not any("drain" in change or "park" in change for change in changes)


def test_a_second_run_changes_nothing_and_says_so(folder):
    driver = sim.serving_fleet((1,))
    deploy(driver, folder, 2)
    driver.arm(None)
    assert deploy(driver, folder, 2, "r2").kind == "unchanged"
    assert driver.changes == []


def test_a_refused_package_touches_no_host(folder):
    driver = sim.serving_fleet((1,))
    before = driver.snapshot()
    driver.arm(3)
    outcome = deploy(driver, folder, 2)
    assert outcome.kind == "refused" and "stage failed" in outcome.reason
    assert driver.snapshot() == before
    assert all(change.startswith("stage") for change in driver.changes)
    assert Journal(folder).unfinished("toy") is None


def test_wrong_answers_on_the_canary_bring_it_back_and_spare_the_rest(folder):
    driver = sim.serving_fleet((1,))
    before = driver.snapshot()
    driver.wrong = {2}
    outcome = deploy(driver, folder, 2)
    assert outcome.kind == "rolled-back" and "golden example" in outcome.reason
    assert driver.snapshot() == before
    touched = {c.split()[-1] for c in driver.changes if not c.startswith(("stage", "route"))}
    assert touched == {"e0"}
    assert {edge.routing for edge in driver.edges.values()} == {Routing(1)}
    assert driver.unproven == [], "nobody was given the bad version"


def test_a_host_that_an_operator_took_out_stays_out(folder):
    driver = sim.serving_fleet((1,))
    driver.machines["e1"].edge = "maint"
    assert deploy(driver, folder, 2).kind == "done"
    assert driver.machines["e1"].edge == "maint"
    assert driver.machines["e1"].serving == (1, 2)


def test_the_last_host_of_a_region_is_loaded_without_being_drained(folder):
    driver = sim.serving_fleet((1,), east=1, west=0)
    assert deploy(driver, folder, 2).kind == "done"
    assert driver.outages == [] and "drain e0" not in driver.changes


def test_the_last_host_of_a_region_is_never_restarted(folder):
    driver = sim.serving_fleet((1,), east=1, west=0)
    with pytest.raises(FleetError, match="only host of us-east"):
        deploy(driver, folder, 2, strategy="restart")
    assert serving(driver) == {(1,)}


def test_a_host_whose_triton_is_down_is_restarted_and_healed(folder):
    driver = sim.serving_fleet((1, 2))
    driver.machines["w1"].alive = False
    assert deploy(driver, folder, 2).kind == "done"
    assert driver.machines["w1"].alive and driver.machines["w1"].serving == (1, 2)


def test_the_first_deployment_of_a_model_is_undone_to_nothing(folder):
    driver = sim.serving_fleet(())
    driver.wrong = {1}
    assert deploy(driver, folder, 1).kind == "rolled-back"
    assert serving(driver) == {()}
    assert {machine.config for machine in driver.machines.values()} == {None}


def test_a_host_that_cannot_be_brought_back_is_named_and_the_next_run_tries_again(folder):
    driver = sim.serving_fleet((1,))
    before = driver.snapshot()
    driver.wrong = {1, 2}
    outcome = deploy(driver, folder, 2)
    assert outcome.kind == "manual-intervention" and list(outcome.stuck) == ["e0"]
    assert driver.machines["e0"].edge != "ready"
    driver.wrong = set()
    with pytest.raises(FleetError, match="fab rollback --model toy --version 1"):
        deploy(driver, folder, 1, "r2")
    assert sim.act(driver, folder, "rollback", 1, "r2").kind == "done"
    assert driver.snapshot() == before


steps = st.integers(1, 80)
strategies = st.sampled_from(["load", "restart"])


@settings(max_examples=120, deadline=None)
@given(
    step=steps, late=st.booleans(), strategy=strategies, before=st.sampled_from([(), (1,), (1, 2)])
)
def test_whatever_fails_the_fleet_is_as_before_or_done(step, late, strategy, before):
    with folder_in_memory() as folder:
        driver = sim.serving_fleet(before)
        first = driver.snapshot()
        driver.arm(step, late)
        outcome = deploy(driver, folder, 3, strategy=strategy)
        if outcome.kind in ("refused", "rolled-back"):
            assert driver.fail_at is None
            assert driver.snapshot() == first
        else:
            assert outcome.kind == "done", "a failure after the commit undoes nothing"
            assert {max(versions) for versions in serving(driver)} == {3}
            assert {edge.routing for edge in driver.edges.values()} == {Routing(3)}
        assert {machine.edge for machine in driver.machines.values()} == {"ready"}
        assert driver.outages == []
        assert driver.unproven == []
        assert Journal(folder).unfinished("toy") is None


@settings(max_examples=80, deadline=None)
@given(step=steps, late=st.booleans(), strategy=strategies, again=strategies)
def test_a_killed_controller_is_continued_by_running_again(step, late, strategy, again):
    with folder_in_memory() as folder:
        driver = sim.serving_fleet((1,))
        driver.arm(step, late, kill=True)
        try:
            deploy(driver, folder, 2, strategy=strategy, parallel=1)
        except sim.Killed:
            driver.arm(None)
            assert deploy(driver, folder, 2, "r2", strategy=again, parallel=1).kind in (
                "done",
                "unchanged",
            )
        assert serving(driver) == {(1, 2)}
        assert {machine.edge for machine in driver.machines.values()} == {"ready"}
        assert driver.outages == [] and driver.unproven == []
        assert Journal(folder).unfinished("toy") is None


@settings(max_examples=80, deadline=None)
@given(step=steps, late=st.booleans(), then=steps, strategy=strategies)
def test_killed_and_then_failed_goes_back_to_before_the_first_try(step, late, then, strategy):
    with folder_in_memory() as folder:
        driver = sim.serving_fleet((1,))
        first = driver.snapshot()
        driver.arm(step, late, kill=True)
        try:
            deploy(driver, folder, 2, strategy=strategy, parallel=1)
        except sim.Killed:
            driver.arm(then)
            outcome = deploy(driver, folder, 2, "r2", strategy=strategy, parallel=1)
            if outcome.kind in ("refused", "rolled-back"):
                assert driver.snapshot() == first
            assert driver.unproven == [] and driver.outages == []
            assert {machine.edge for machine in driver.machines.values()} == {"ready"}


@settings(max_examples=50, deadline=None)
@given(step=steps, late=st.booleans())
def test_killed_and_then_another_version_is_deployed(step, late):
    with folder_in_memory() as folder:
        driver = sim.serving_fleet((1,))
        driver.arm(step, late, kill=True)
        try:
            deploy(driver, folder, 2, parallel=1)
        except sim.Killed:
            driver.arm(None)
            assert sim.act(driver, folder, "rollback", 1, "r2").kind in ("done", "unchanged")
            assert serving(driver) == {(1,)}
            assert {machine.edge for machine in driver.machines.values()} == {"ready"}
            assert Journal(folder).unfinished("toy") is None


def test_two_controllers_are_told_apart(folder):
    from serving.fleet.rollout.lease import Locked

    driver = sim.serving_fleet((1,))
    with hold(folder, "deploy toy/9", 30), pytest.raises(Locked, match="toy/9"):
        deploy(driver, folder, 2)
    assert driver.changes == []


def test_a_controller_that_lost_its_lease_stops_and_does_not_undo(folder):
    from serving.fleet.rollout.lease import LeaseLost

    driver = sim.serving_fleet((1,))
    install = driver.install

    def taken_over(host, shipment):
        install(host, shipment)
        (folder / "lease.json").unlink()

    driver.install = taken_over
    with pytest.raises(LeaseLost):
        deploy(driver, folder, 2)
    assert driver.changes[-1] == "install e0"
    assert Journal(folder).unfinished("toy").touched.keys() == {"e0"}


def test_a_host_that_saw_a_newer_controller_refuses_and_nothing_is_undone(folder):
    from serving.fleet.rollout.lease import LeaseLost

    driver = sim.serving_fleet((1,))
    install, touched = driver.install, []

    def newer_elsewhere(host, shipment):
        install(host, shipment)
        touched.append(host.name)
        driver.machines[host.name].fence = 7  # another controller, with a lease of another folder

    driver.install = newer_elsewhere
    with pytest.raises(LeaseLost, match="has seen the controller 7"):
        deploy(driver, folder, 2)
    assert touched == ["e0"]
    assert [change for change in driver.changes if not change.startswith("stage")] == ["install e0"]
    assert Journal(folder).unfinished("toy").touched.keys() == {"e0"}


@pytest.mark.parametrize(
    ("step", "code", "kind"), [("stage", 130, "refused"), ("serve", 130, "rolled-back")]
)
def test_ctrl_c_undoes_and_ends_with_its_own_code(folder, monkeypatch, step, code, kind):
    driver = sim.serving_fleet((1,))
    before = {name: machine.serving for name, machine in driver.machines.items()}
    plain = getattr(driver, step)

    def interrupted(host, *arguments):
        monkeypatch.setattr(driver, step, plain)
        raise KeyboardInterrupt

    monkeypatch.setattr(driver, step, interrupted)
    outcome = deploy(driver, folder, 2, parallel=1)
    assert (outcome.kind, outcome.exit_code) == (kind, code)
    assert {name: machine.serving for name, machine in driver.machines.items()} == before
