"""The matrix: a controller killed at any change or journal line, and each command typed next.

Whatever was killed where, and whatever is typed then: no edge gives a version to a host that does
not serve it proven, no region is without a host, the ledger and the edges agree, and the commands
that status advises lead to where it says. A sample runs always; all of it with the mark `full`.
"""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from serving.fleet.errors import FleetError
from serving.fleet.rollout.actions import production
from serving.fleet.rollout.advice import next_command, version_back
from serving.fleet.rollout.journal import Journal, history
from serving.fleet.routing import Routing
from serving.triton import model_config
from tests.serving.fleet import simulated as sim
from tests.serving.fleet.journals import folder_in_memory

KILLED = ("deploy", "restart", "rollback", "cold rollback", "heal", "undo", "swap")
NEXT = ("again", "rollback", "deploy", "heal")
POINTS = 130
"""More than any of these rollouts has kill points."""
OTHER = sim.CONFIG.replace('name: "y"', 'name: "z"')


class Killer:
    """Kills the writer of the journal at its `at`-th line: before a line is on the disk, or, for
    the ledger's line, also after it."""

    def __init__(self, driver, at: int | None) -> None:
        self.driver, self.at, self.lines = driver, at, 0
        self.lock = threading.Lock()

    def line(self) -> None:
        with self.lock:
            self.lines += 1
            if self.driver.killed or self.lines == self.at:
                self.driver.killed = True
                raise sim.Killed

    def patch(self, patched) -> None:
        record, enter = Journal.record, Journal.enter

        def killing_record(journal, event, rollout, **content):
            self.line()
            return record(journal, event, rollout, **content)

        def killing_enter(journal, action, rollout, **content):
            self.line()
            enter(journal, action, rollout, **content)
            self.line()

        patched.setattr(Journal, "record", killing_record)
        patched.setattr(Journal, "enter", killing_enter)


def prepared(folder: Path):
    """Versions 1 and then 2 in production, proven on every host."""
    driver = sim.serving_fleet(())
    assert sim.act(driver, folder, "deploy", 1, "first").kind == "done"
    assert sim.act(driver, folder, "deploy", 2, "second").kind == "done"
    driver.unproven.clear()
    driver.outages.clear()
    return driver


def spoil(driver, folder: Path, what: str) -> None:
    """The fault that the rollout meets."""
    if what == "undo":
        driver.failing = {3: 1.0}
    elif what == "heal":
        driver.machines["e1"].dead = {2}
        driver.machines["w0"].alive = False
    elif what == "cold rollback":
        for name in ("e0", "e1"):
            driver.machines[name].serve((2,))
            Journal(folder).record("proven", "x", model="toy", version=2, host=name, versions=[2])


def start(driver, folder: Path, what: str, rollout: str = "killed"):
    """The rollout that is killed."""
    if what == "deploy":
        return sim.act(driver, folder, "deploy", 3, rollout, parallel=1)
    if what == "restart":
        return sim.act(driver, folder, "deploy", 3, rollout, strategy="restart", parallel=1)
    if what == "swap":
        return sim.act(
            driver, folder, "deploy", 3, rollout, package=sim.shipment(3, OTHER), parallel=1
        )
    if what == "undo":
        return sim.act(driver, folder, "deploy", 3, rollout, parallel=1)
    if what == "heal":
        return sim.act(driver, folder, "heal", 2, rollout, parallel=1)
    return rollback(driver, folder, rollout)


def rollback(driver, folder: Path, rollout: str, named: int | None = None):
    journal = Journal(folder)
    stack = history(journal.productions("toy"))
    version = version_back("toy", stack, journal.open_rollout("toy"), named)
    package = sim.shipment(3, OTHER) if version == 3 and OTHER in driver.configs.values() else None
    return sim.act(driver, folder, "rollback", version, rollout, package=package, parallel=1)


def follow(driver, folder: Path, killed: str, command: str):
    """The next command, as a person would type it; None where it was refused with a sentence."""
    package = sim.shipment(3, OTHER) if killed == "swap" else None
    try:
        if command == "again":
            if killed in ("rollback", "cold rollback"):
                return rollback(driver, folder, "next")
            if killed == "heal":
                return sim.act(driver, folder, "heal", 2, "next", parallel=1)
            return sim.act(driver, folder, "deploy", 3, "next", package=package, parallel=1)
        if command == "rollback":
            return rollback(driver, folder, "next")
        if command == "heal":
            version = production(Journal(folder), "toy")
            chosen = package if version == 3 else None
            return sim.act(driver, folder, "heal", version, "next", package=chosen, parallel=1)
        return sim.act(driver, folder, "deploy", 3, "next", package=package, parallel=1)
    except FleetError as error:
        assert "fab " in str(error), "a refusal has the next command"
        return None


def sound(driver, folder: Path, killed: str) -> None:
    """The edges, the hosts and the ledger agree, and every host takes traffic."""
    version = production(Journal(folder), "toy")
    assert {edge.routing for edge in driver.edges.values()} == {Routing(version)}
    for name, machine in driver.machines.items():
        assert machine.takes_traffic(), f"{name} is {machine.edge}"
        assert machine.answers(version) and version in machine.proven, name
    assert Journal(folder).open_rollout("toy") is None


def killed_at(driver, folder: Path, what: str, point: int, late: bool) -> bool:
    """Run `what` with a kill at `point`: odd ones are changes, even ones are journal lines."""
    spoil(driver, folder, what)
    driver.arm(point // 2 + 1 if point % 2 else None, late, kill=True)
    try:
        with pytest.MonkeyPatch.context() as patched:
            Killer(driver, None if point % 2 else point // 2).patch(patched)
            start(driver, folder, what)
    except sim.Killed:
        return True
    finally:
        driver.arm(None)
        driver.failing = {}
    return False


def starts_as_before(driver, folder: Path) -> None:
    """Before the step to all requests a version on trial is nothing that a crashed Triton starts
    with, and nothing that a host's own watch may take the host out for."""
    events = Journal(folder).events("toy")
    judged = {
        one.host for one in events if one.version == 3 and one.content.get("step") == "persist"
    }
    for name, machine in driver.machines.items():
        assert name in judged or 3 not in model_config.versions_in(machine.config), name


def stays_whole(driver, swap: bool) -> None:
    """No client noticed: nobody was given an unproven version, no region was empty."""
    assert driver.outages == []
    assert driver.unproven == []


def check(what: str, command: str, point: int, late: bool) -> bool:
    """One cell of the matrix; False where the rollout has no such kill point."""
    with folder_in_memory() as folder:
        driver = prepared(folder)
        faulty = what == "heal"
        if not killed_at(driver, folder, what, point, late):
            return False
        if what != "swap":
            starts_as_before(driver, folder)
        found = Journal(folder).open_rollout("toy")
        if found:
            assert "fab " in next_command(found, production(Journal(folder), "toy"))
        outcome = follow(driver, folder, what, command)
        if outcome is None:
            # Refused with the command to type instead, which then ends it.
            outcome = rollback(driver, folder, "advised")
        assert outcome.kind in ("done", "unchanged"), outcome
        if faulty and command == "deploy":
            # A deployment loads beside what serves; heal is what looks behind readiness.
            assert sim.act(driver, folder, "heal", 3, "mended").exit_code == 0
        if faulty and command == "rollback":
            assert sim.act(driver, folder, "heal", 1, "mended").exit_code == 0
        sound(driver, folder, what)
        if not faulty:
            stays_whole(driver, what == "swap")
        return True


@pytest.mark.parametrize("command", NEXT)
@pytest.mark.parametrize("what", KILLED)
def test_a_killed_rollout_and_the_next_command_end_in_a_stated_state(what, command):
    points = [
        point for point in range(2, POINTS, 13) if check(what, command, point, point % 3 == 0)
    ]
    assert len(points) > 2


@pytest.mark.full
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("command", NEXT)
@pytest.mark.parametrize("what", KILLED)
def test_every_kill_point_and_the_next_command_end_in_a_stated_state(what, command, late):
    points = [point for point in range(2, POINTS) if check(what, command, point, late)]
    assert len(points) > 30
