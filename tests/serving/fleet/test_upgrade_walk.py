"""`fab upgrade` as a rollout: journalled, continued after a kill, shown by history and status."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import INCOMPLETE
from serving.fleet.bootstrap.changes import HostChange, environment_digests
from serving.fleet.bootstrap.facts import HostEnvironment, HostGroup
from serving.fleet.cli.command import Controls
from serving.fleet.cli.history import history_lines, rollout_history
from serving.fleet.cli.holder_watch import HolderWatch
from serving.fleet.cli.upgrade_status import RunningUpgrade, upgrade_now
from serving.fleet.errors import FleetError, FleetRefusal
from serving.fleet.rollout.journal import Journal
from serving.fleet.rollout.lease import LeaseLost, hold
from serving.fleet.rollout.rollout_config import RolloutConfig
from serving.fleet.rollout.upgrade_walk import UpgradeStopped, UpgradeWalk
from serving.fleet.rollout.upgrades import Serving, open_upgrade, upgrade_records
from serving.fleet.simulation.simulated_driver import Killed

HOSTS = ("h1", "h2", "h3")
EDGES = ("us-east", "us-east-2")


@dataclass
class UpgradeBed:
    """Three machines behind two edges, in memory. Change number `fail_at` raises `failure`."""

    folder: Path
    new: dict[str, bool] = field(default_factory=lambda: dict.fromkeys(HOSTS, False))
    traffic: dict[str, set[str]] = field(default_factory=lambda: {h: set(EDGES) for h in HOSTS})
    serving: dict[str, Serving] = field(default_factory=lambda: {h: {"toy": (1,)} for h in HOSTS})
    changes: list[str] = field(default_factory=list)
    fail_at: int | None = None
    failure: type[BaseException] = Killed

    def change(self, what: str, effect: Callable[[], Any]) -> None:
        """Make one change, or fail at it; at no time may every machine be out."""
        self.changes.append(what)
        if len(self.changes) - 1 == self.fail_at:
            raise self.failure("it ended here")
        effect()
        assert all(any(edge in self.traffic[host] for host in HOSTS) for edge in EDGES)

    def upgrade(self, name: str = "u1", reason: str = "numpy 2.1") -> None:
        """One `fab upgrade` of what is old or was left half-way."""
        journal = Journal(self.folder)
        with hold(self.folder, f"upgrade {name}", 30) as lease:
            found = open_upgrade(journal.events())
            left = found.left if found else {}
            wanted = [SimulatedMachine(self, host) for host in HOSTS
                      if host in left or not self.new[host]]  # fmt: skip
            wanted.sort(key=lambda machine: machine.name not in left)
            UpgradeWalk(name, journal, lease).run(wanted, found, reason)


@dataclass(frozen=True)
class SimulatedMachine:
    """`MachineUpgrade` over a bed: Triton answers nothing while it is made, and once it was killed
    in that."""

    bed: UpgradeBed
    name: str

    @property
    def digests(self) -> tuple[str, str]:
        return ("bbb" if self.bed.new[self.name] else "aaa", "bbb")

    def serving(self) -> Serving:
        return self.bed.serving[self.name]

    def edges(self) -> tuple[str, ...]:
        return tuple(edge for edge in EDGES if edge in self.bed.traffic[self.name])

    def refuse_last(self) -> None:
        others = [host for host in HOSTS if host != self.name and self.bed.traffic[host]]
        if self.edges() and not others:
            raise FleetRefusal(f"{self.name} is the only host in traffic")

    def take_out(self) -> None:
        for edge in self.edges():
            self.bed.change(f"{self.name} out of {edge}", lambda edge=edge: self._out(edge))

    def make(self) -> None:
        self.bed.change(f"{self.name} stops", lambda: self._serve({}))
        self.bed.change(f"{self.name} is made", self._make)

    def prove(self, before: Serving) -> None:
        if self.serving() != before:
            raise FleetError(f"{self.name} served {before} and serves {self.serving()}.")

    def give_back(self, edges: Sequence[str]) -> None:
        for edge in edges:
            self.bed.change(f"{self.name} into {edge}", lambda edge=edge: self._in(edge))

    def _out(self, edge: str) -> None:
        self.bed.traffic[self.name].discard(edge)

    def _in(self, edge: str) -> None:
        self.bed.traffic[self.name].add(edge)

    def _serve(self, serving: Serving) -> None:
        self.bed.serving[self.name] = serving

    def _make(self) -> None:
        self.bed.new[self.name] = True
        self._serve({"toy": (1,)})


@pytest.fixture
def bed(tmp_path: Path) -> UpgradeBed:
    return UpgradeBed(tmp_path)


def controls(bed: UpgradeBed) -> Controls:
    return Controls(None, bed.folder / "store", Journal(bed.folder), RolloutConfig(), "", None)  # type: ignore[arg-type]


def is_done(bed: UpgradeBed) -> bool:
    whole = all(bed.traffic[host] == set(EDGES) for host in HOSTS)
    return whole and all(bed.new.values()) and open_upgrade(Journal(bed.folder).events()) is None


CHANGES = 6 * len(HOSTS)


@pytest.mark.parametrize("fail_at", range(CHANGES))
def test_an_upgrade_killed_at_any_change_and_typed_again_goes_on(
    bed: UpgradeBed, fail_at: int
) -> None:
    bed.fail_at = fail_at
    with pytest.raises(Killed):
        bed.upgrade("u1")
    bed.fail_at = None
    found = upgrade_now(Journal(bed.folder), HolderWatch(bed.folder, 30))
    at = HOSTS[fail_at // 6]
    rest = ",".join(HOSTS[fail_at // 6 :])
    assert found == (
        f"upgrade u1 did not end, {at} was left half-way. Go on: fab upgrade --hosts {rest}"
    )
    bed.upgrade("u2")
    assert is_done(bed)


@settings(max_examples=15)  # each line of a journal is waited for until it is on the disk
@given(kills=st.lists(st.integers(0, CHANGES), max_size=4))
def test_kill_after_kill_it_ends_with_every_host_in_traffic(tmp_path_factory, kills) -> None:
    bed = UpgradeBed(tmp_path_factory.mktemp("upgrade"))
    for number, fail_at in enumerate(kills):
        bed.changes.clear()
        bed.fail_at = fail_at
        with suppress(Killed):
            bed.upgrade(f"u{number}")
    bed.fail_at = None
    bed.upgrade("last")
    assert is_done(bed)


def test_a_host_that_fails_stays_out_and_is_named_and_the_next_command_returns_it(
    bed: UpgradeBed,
) -> None:
    bed.fail_at, bed.failure = 9, FleetError  # h2 is made
    with pytest.raises(UpgradeStopped, match="h2 was left half-way; upgraded before it: h1") as no:
        bed.upgrade("u1")
    assert no.value.exit_code == INCOMPLETE and no.value.args[0].endswith("--hosts h2,h3")
    assert bed.traffic["h2"] == set() and bed.traffic["h3"] == set(EDGES) and not bed.new["h3"]
    (record,) = upgrade_records(Journal(bed.folder).events())
    assert (record.outcome, record.finished, record.host) == ("incomplete", ("h1",), "h2")
    bed.fail_at = None
    bed.upgrade("u2")
    assert is_done(bed)


def test_a_host_that_a_person_took_out_meanwhile_is_upgraded_and_stays_out(bed: UpgradeBed) -> None:
    bed.fail_at = 2  # h1 is out of traffic
    with pytest.raises(Killed):
        bed.upgrade("u1")
    Journal(bed.folder).record("quarantined", "host-9", host="h1", reason="its fan")
    bed.fail_at = None
    bed.upgrade("u2")
    assert bed.new["h1"] and bed.traffic["h1"] == set()
    assert open_upgrade(Journal(bed.folder).events()) is None


def test_the_only_host_in_traffic_is_not_touched_and_nothing_stays_open(bed: UpgradeBed) -> None:
    bed.traffic["h2"] = bed.traffic["h3"] = set()
    with pytest.raises(FleetRefusal, match="only host"):
        bed.upgrade("u1")
    assert bed.changes == [] and open_upgrade(Journal(bed.folder).events()) is None
    assert upgrade_records(Journal(bed.folder).events())[0].outcome == "refused"


def test_who_lost_the_fleet_writes_no_end(bed: UpgradeBed) -> None:
    bed.fail_at, bed.failure = 3, LeaseLost
    with pytest.raises(LeaseLost):
        bed.upgrade("u1")
    found = open_upgrade(Journal(bed.folder).events())
    assert found and found.record.outcome == "open" and list(found.left) == ["h1"]


def test_history_has_who_why_from_what_to_what_and_how_it_ended(bed: UpgradeBed) -> None:
    bed.upgrade("u1", reason="numpy 2.1")
    (row,) = rollout_history(controls(bed), None, None)
    assert (row.action, row.hosts, row.outcome, row.version) == ("upgrade", HOSTS, "done", None)
    assert row.digests == (("aaa", "bbb"),) * 3
    first, why = history_lines([row])[0].splitlines()
    assert "h1,h2,h3 aaa to bbb" in first and "done" in first and "@" in first
    assert why.strip() == "numpy 2.1"
    assert rollout_history(controls(bed), "toy", None) == []


def test_an_upgrade_at_work_is_no_fault(bed: UpgradeBed) -> None:
    seen: list[RunningUpgrade | str] = []

    def watched() -> None:
        seen.append(upgrade_now(Journal(bed.folder), HolderWatch(bed.folder, 30)))

    machine = SimulatedMachine(bed, "h1")
    object.__setattr__(machine, "take_out", watched)
    with hold(bed.folder, "upgrade u1", 30) as lease:
        UpgradeWalk("u1", Journal(bed.folder), lease).run([machine], None, "numpy 2.1")
    (going,) = seen
    assert isinstance(going, RunningUpgrade) and going.host == "h1"
    assert str(going).startswith("upgrade of h1 is going on: by ")
    assert str(going).endswith("0 of 1 done, now at h1 (numpy 2.1)")
    assert upgrade_now(Journal(bed.folder), HolderWatch(bed.folder, 30)) == ""


@pytest.mark.parametrize(
    ("reason", "before"),
    [("is env-000000000000", "000000000000"), ("missing", ""), ("incomplete", ""),
     (None, "111111111111")],
)  # fmt: skip
def test_the_environment_of_before_is_read_from_its_difference(
    reason: str | None, before: str
) -> None:
    fact = HostEnvironment("/srv/env", "/srv/wheels", "", "1" * 64, ())
    changes = [HostChange(fact, reason)] if reason else [HostChange(HostGroup("g"), "missing")]
    assert environment_digests([fact], changes) == (before, "1" * 12)
