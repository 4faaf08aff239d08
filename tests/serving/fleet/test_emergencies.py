"""Rollback, heal and undo when something is broken: each test is an emergency that once hurt."""

from __future__ import annotations

import pytest

from serving.fleet.errors import FleetError
from serving.fleet.rollout.actions import production
from serving.fleet.rollout.advice import next_command, version_back
from serving.fleet.rollout.journal import Journal, history
from serving.fleet.rollout.rollout_plan import Selection
from serving.fleet.routing import Routing
from tests.serving.fleet import simulated as sim


@pytest.fixture
def driver(folder):
    """Version 1, then version 2 in production; both proven on every host."""
    made = sim.serving_fleet(())
    assert sim.act(made, folder, "deploy", 1, "first").kind == "done"
    assert sim.act(made, folder, "deploy", 2, "second").kind == "done"
    made.arm(None)
    made.unproven.clear()
    made.outages.clear()
    return made


def back(driver, folder, rollout="r3", named=None, **options):
    """`fab rollback`, as the command line does it."""
    journal = Journal(folder)
    stack = history(journal.productions("toy"))
    version = version_back("toy", stack, journal.open_rollout("toy"), named)
    return version, sim.act(driver, folder, "rollback", version, rollout, **options)


def routings(driver):
    return {edge.routing for edge in driver.edges.values()}


def sound(driver, version: int) -> None:
    assert routings(driver) == {Routing(version)}
    for name, machine in driver.machines.items():
        assert machine.takes_traffic(), name
        assert machine.answers(version) and version in machine.proven, name
    assert driver.outages == []


def test_a_warm_rollback_moves_every_edge_before_any_host_is_spoken_to(driver, folder):
    version, outcome = back(driver, folder)
    assert (version, outcome.kind) == (1, "done")
    assert sorted(driver.changes[:2]) == ["route us-east", "route us-west"]
    sound(driver, 1)
    assert driver.unproven == []
    assert production(Journal(folder), "toy") == 1


@pytest.mark.parametrize("late", [False, True])
def test_a_killed_rollback_typed_again_goes_on_back_and_never_forward(driver, folder, late):
    """Row 1."""
    for machine in driver.machines.values():
        machine.serve((2,))  # the version before is not warm: hosts have to load it first
    journal = Journal(folder)
    for name in driver.machines:
        journal.record("proven", "second", model="toy", version=2, host=name, versions=[2])
    number = 1
    while True:
        driver.arm(number, late, kill=True)
        try:
            version, outcome = back(driver, folder, f"k{number}")
            break
        except sim.Killed:
            found = journal.open_rollout("toy")
            if found:
                assert "fab rollback --model toy --version 1" in next_command(found, 2)
        number += 3
    assert number > 3
    assert version == 1 and outcome.exit_code == 0
    assert back_stops(folder)
    sound(driver, 1)
    assert driver.unproven == []


def back_stops(folder) -> bool:
    """True when the ledger has no version that a further rollback would go to."""
    return history(Journal(folder).productions("toy")) == [1]


def test_a_load_whose_ssh_died_is_waited_out_and_set_back(driver, folder):
    """Row 2."""
    before = driver.snapshot()
    driver.arm(driver_count(driver, "serve"), hang=True)
    outcome = sim.act(driver, folder, "deploy", 3, "r3")
    assert outcome.kind == "rolled-back" and "serve failed" in outcome.reason
    for host in driver.fleet.hosts:
        for _ in range(5):
            driver.read_host(host)  # whatever was still to land has landed
    assert driver.snapshot() == before
    sound(driver, 2)
    assert driver.unproven == []


def driver_count(driver, what: str) -> int:
    """The number of the first change of this kind in a deployment: four hosts are staged first."""
    order = ["stage"] * 4 + ["install", "serve"]
    return order.index(what) + 1


@pytest.mark.parametrize("action", ["rollback", "deploy", "heal"])
def test_one_unreachable_host_blocks_nobody(driver, folder, action):
    """Row 3."""
    driver.machines["w1"].reachable = False
    if action == "rollback":
        _, outcome = back(driver, folder)
        assert driver.machines["w1"].edge == "maint", "nobody can prove what it answers"
        target = 1
    elif action == "heal":
        driver.machines["e0"].alive = False
        outcome = sim.act(driver, folder, "heal", 2, "r3")
        assert driver.machines["e0"].answers(2)
        target = 2
    else:
        with pytest.raises(FleetError, match="--skip w1"):
            sim.act(driver, folder, "deploy", 3, "r3")
        skip = Selection(skip=frozenset({"w1"}))
        outcome = sim.act(driver, folder, "deploy", 3, "r3", selection=skip)
        assert outcome.kind == "done"
        assert driver.machines["w1"].edge == "maint"
        assert Journal(folder).quarantined() == {"w1": "skipped by --skip"}
        target = 3
    if action != "deploy":
        assert outcome.exit_code == 3 and list(outcome.stuck) == ["w1"]
    assert routings(driver) == {Routing(target)}
    others = [machine for name, machine in driver.machines.items() if name != "w1"]
    assert all(m.takes_traffic() and m.answers(target) for m in others)
    assert driver.outages == []


def test_an_unreachable_edge_is_named_and_the_others_are_moved(driver, folder):
    driver.edges["us-west"].reachable = False
    _, outcome = back(driver, folder)
    assert outcome.exit_code == 3 and "us-west" in outcome.stuck
    assert driver.edges["us-east"].routing == Routing(1)
    assert all(driver.machines[name].answers(2) for name in ("w0", "w1")), "its edge gives 2 still"
    driver.edges["us-west"].reachable = True
    assert sim.act(driver, folder, "heal", 1, "r4").kind == "done"
    sound(driver, 1)


def test_a_dead_version_before_is_restarted_and_no_rollback_is_undone(driver, folder):
    """Row 4."""
    driver.machines["e1"].dead = {1}
    version, outcome = back(driver, folder)
    assert (version, outcome.kind, outcome.exit_code) == (1, "done", 0)
    assert driver.machines["e1"].restarts == 1
    sound(driver, 1)


def test_a_host_that_stays_dead_is_quarantined_and_named(driver, folder):
    driver.machines["e1"].dead = driver.machines["e1"].doomed = {1}
    _, outcome = back(driver, folder)
    assert outcome.exit_code == 3 and list(outcome.stuck) == ["e1"]
    assert driver.machines["e1"].edge == "maint"
    assert "e1" in Journal(folder).quarantined()
    assert production(Journal(folder), "toy") == 1
    assert sim.act(driver, folder, "deploy", 3, "r4").kind == "done"
    assert driver.machines["e1"].edge == "maint", "a quarantined host is left alone"
    driver.machines["e1"].doomed = set()
    named = Selection(only=frozenset({"e1"}))
    assert sim.act(driver, folder, "heal", 3, "r5", selection=named).exit_code == 0
    assert driver.machines["e1"].answers(3)


def test_the_version_before_is_proven_by_a_deployment(driver, folder):
    driver.machines["e1"].dead = {2}
    assert sim.act(driver, folder, "deploy", 3, "r3").kind == "done"
    assert driver.machines["e1"].restarts == 1, "a dead stub of the version before is restarted"
    assert driver.machines["e1"].answers(2)


@pytest.mark.parametrize("fault", ["dead", "before", "tampered", "stopped"])
def test_heal_sees_a_fault_that_readiness_hides(driver, folder, fault):
    """Row 5, and a changed model.py of row 11."""
    machine = driver.machines["w0"]
    if fault == "dead":
        machine.dead = {2}
    elif fault == "before":
        machine.dead = {1}
    elif fault == "tampered":
        machine.tampered = {2}
    else:
        machine.alive = False
    assert sim.act(driver, folder, "heal", 2, "r3").kind == "done"
    assert machine.restarts == 1 and machine.tampered == set()
    sound(driver, 2)
    assert machine.answers(1)
    assert sim.act(driver, folder, "heal", 2, "r4").kind == "unchanged"


def test_one_host_that_cannot_be_healed_does_not_hide_the_others(driver, folder):
    driver.machines["e0"].doomed = driver.machines["e0"].dead = {2}
    driver.machines["w0"].alive = False
    driver.edges["us-west"].routing = Routing(1)
    outcome = sim.act(driver, folder, "heal", 2, "r3")
    assert outcome.exit_code == 3 and list(outcome.stuck) == ["e0"]
    assert driver.machines["w0"].answers(2)
    assert routings(driver) == {Routing(2)}, "the edges' routing is asserted again"


def test_a_version_that_will_not_unload_ends_with_a_restart(driver, folder):
    """Row 6."""
    driver.machines["e0"].sticky = {3}
    driver.wrong = {3}
    outcome = sim.act(driver, folder, "deploy", 3, "r3")
    assert outcome.kind == "rolled-back", outcome
    assert driver.machines["e0"].restarts == 1 and not driver.machines["e0"].unready()
    sound(driver, 2)
    driver.wrong = set()
    assert sim.act(driver, folder, "deploy", 3, "r4").kind == "done"


def test_a_kill_around_the_commit_never_costs_a_version(driver, folder, monkeypatch):
    """Row 7: the ledger line is the one commit point."""
    sim.act(driver, folder, "deploy", 3, "r3")
    record = Journal.record

    def killed(self, event, rollout, **content):
        if event == "done":
            raise sim.Killed
        return record(self, event, rollout, **content)

    monkeypatch.setattr(Journal, "record", killed)
    with pytest.raises(sim.Killed):
        sim.act(driver, folder, "deploy", 4, "r4")
    monkeypatch.setattr(Journal, "record", record)
    assert Journal(folder).unfinished("toy") is None
    version, _ = back(driver, folder, "r5")
    assert version == 3

    def no_ledger(self, *_, **__):
        raise sim.Killed

    monkeypatch.setattr(Journal, "enter", no_ledger)
    with pytest.raises(sim.Killed):
        sim.act(driver, folder, "deploy", 5, "r6")
    monkeypatch.undo()
    assert Journal(folder).unfinished("toy").version == 5
    version, outcome = back(driver, folder, "r7")
    assert (version, outcome.kind) == (3, "done")
    sound(driver, 3)


def test_a_second_interrupt_names_what_was_left_and_how_to_go_on(driver, folder, monkeypatch):
    """Row 8."""
    shown = []
    interrupts = {"serve": 1, "withdraw": 0}
    serve = driver.serve

    def interrupted(host, versions, rollback):
        serve(host, versions, rollback)
        interrupts["serve"] += 1
        raise KeyboardInterrupt

    monkeypatch.setattr(driver, "serve", interrupted)
    outcome = sim.act(
        driver, folder, "deploy", 3, "r3", progress=lambda *what: shown.append(what), parallel=1
    )
    assert outcome.kind == "manual-intervention" and outcome.exit_code == 3
    assert "not yet as before: e0" in outcome.reason
    assert any(step == "undo" and "Ctrl-C" in detail for _, step, detail in shown)
    found = Journal(folder).unfinished("toy")
    assert found.touched.keys() == {"e0"}
    assert "fab rollback --model toy --version 2" in next_command(found, 2)
    monkeypatch.undo()
    version, outcome = back(driver, folder, "r4")
    assert (version, outcome.kind) == (2, "done")
    sound(driver, 2)


def test_an_interrupted_rollback_is_not_undone_and_is_continued(driver, folder, monkeypatch):
    check = driver.check_golden

    def interrupted(host, version):
        monkeypatch.setattr(driver, "check_golden", check)
        raise KeyboardInterrupt

    monkeypatch.setattr(driver, "check_golden", interrupted)
    monkeypatch.setattr("serving.fleet.rollout.mending._READERS", 1)
    version, outcome = back(driver, folder)
    assert outcome.exit_code == 3 and routings(driver) == {Routing(1)}
    found = Journal(folder).open_rollout("toy")
    assert found.committed and "fab rollback --model toy --version 1" in next_command(found, 1)
    version, outcome = back(driver, folder, "r4")
    assert (version, outcome.kind) == (1, "done"), "typed again it does not go further back"
    sound(driver, 1)


def test_heal_refuses_to_lead_back_to_what_a_rollback_was_leaving(driver, folder):
    driver.arm(1, kill=True)
    with pytest.raises(sim.Killed):
        back(driver, folder)
    with pytest.raises(FleetError, match="fab rollback --model toy --version 1"):
        sim.act(driver, folder, "heal", 2, "r4")


def test_hosts_without_the_version_get_no_traffic_while_the_edges_give_it(driver, folder):
    """A rollback to a version that only some hosts have warm."""
    machine = driver.machines["e0"]
    machine.serve((2,))
    Journal(folder).record("proven", "x", model="toy", version=2, host="e0", versions=[2])
    _, outcome = back(driver, folder)
    assert outcome.kind == "done" and driver.unproven == []
    assert driver.changes[0] == "park e0", "out of traffic before the edges were moved"
    sound(driver, 1)


def test_a_rollback_to_a_version_with_another_interface_goes_host_by_host(folder):
    other = sim.CONFIG.replace('name: "y"', 'name: "z"')
    made = sim.serving_fleet(())
    sim.act(made, folder, "deploy", 1, "first")
    made.unproven.clear()
    made.outages.clear()
    new = sim.shipment(2, other)
    assert sim.act(made, folder, "deploy", 2, "second", package=new).kind == "done"
    assert {machine.serving for machine in made.machines.values()} == {(2,)}
    assert routings(made) == {Routing(2)}
    _, outcome = back(made, folder)
    assert outcome.kind == "done", outcome
    assert {machine.serving for machine in made.machines.values()} == {(1,)}
    sound(made, 1)
    assert made.unproven == []


def test_a_slow_failure_in_the_traffic_moves_it_back_before_any_host(driver, folder):
    driver.failing = {3: 0.2}
    outcome = sim.act(driver, folder, "deploy", 3, "r3")
    assert outcome.kind == "rolled-back" and "requests to version 3 failed" in outcome.reason
    first_back = driver.routed[-2:]
    assert {routing for _, routing in first_back} == {Routing(2)}
    assert [percent for _, percent in driver.routed if percent.canary == 3] == [
        Routing(2, 3, 10)
    ] * 2, "it never got more than a tenth"
    sound(driver, 2)


def test_a_version_that_fails_copies_of_requests_is_given_none_to_answer(driver, folder):
    driver.failing = {3: 0.5}
    outcome = sim.act(driver, folder, "deploy", 3, "r3", shadow_percent=20)
    assert outcome.kind == "rolled-back" and "of 40 copies of requests" in outcome.reason
    assert not any(3 in (routing.version, routing.canary) for _, routing in driver.routed)
    sound(driver, 2)
    driver.failing = {}
    assert sim.act(driver, folder, "deploy", 3, "r4", shadow_percent=20).kind == "done"


def test_a_stopped_host_is_never_the_canary(driver, folder):
    driver.machines["e0"].alive = False
    shown = []
    sim.act(driver, folder, "deploy", 3, "r3", progress=lambda *what: shown.append(what))
    assert next(host for host, step, _ in shown if step == "install") == "e1"


def test_named_hosts_are_prepared_and_no_request_moves(driver, folder):
    named = Selection(only=frozenset({"e0"}))
    outcome = sim.act(driver, folder, "deploy", 3, "r3", selection=named)
    assert outcome.kind == "prepared" and outcome.exit_code == 0
    assert driver.machines["e0"].serving == (1, 2, 3)
    assert routings(driver) == {Routing(2)} and production(Journal(folder), "toy") == 2
    assert Journal(folder).open_rollout("toy") is None
    assert sim.act(driver, folder, "deploy", 3, "r4").kind == "done"
    sound(driver, 3)


def test_a_region_is_never_left_without_a_host_by_skipping(driver, folder):
    skip = Selection(skip=frozenset({"w0", "w1"}))
    with pytest.raises(FleetError, match="us-west would be left without a host"):
        sim.act(driver, folder, "deploy", 3, "r3", selection=skip)
