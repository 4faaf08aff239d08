"""Who holds the fleet when clocks are wrong, machines are far and processes stand still."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from conf import LockgateError
from serving.fleet.errors import FleetConfigError, FleetError
from serving.fleet.rollout import lease
from serving.fleet.rollout.holder import LEASE, Holder, holder_in, read_lease, write_lease
from serving.fleet.rollout.journal import Journal
from serving.fleet.rollout.lease import FENCE, Locked, hold, lock_fleet, unlock_fleet

DAY = 86_400
HOLD = """
import sys, time
from pathlib import Path

folder, ttl_s, skew, boot = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
clock = time.time
time.time = lambda: clock() + skew
from serving.fleet.rollout import lease

if boot:
    lease.this_boot = lambda: boot
with lease.hold(folder, "deploy toy/2", ttl_s) as mine:
    print("held", mine.fence, flush=True)
    for line in sys.stdin:
        try:
            mine.check()
            print("step", flush=True)
        except lease.LeaseLost as error:
            print("lost:", error, flush=True)
"""


@pytest.fixture
def far(tmp_path):
    """Starts a holder as another process; `boot` makes it one of another machine."""
    started = []

    def start(ttl_s: float, skew: float = 0, boot: str = "") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path), str(ttl_s), str(skew), boot],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        assert process.stdout.readline().startswith("held")
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def dead(folder: Path, since: float, ttl_s: float = 1.0, **changes) -> Holder:
    """The lease that a controller of another machine left."""
    left = Holder("t", "eve@far", "deploy toy/2", "another boot", 7, "5", since, 9, ttl_s, 4)
    write_lease(folder / LEASE, replace(left, **changes))
    return left


@pytest.mark.parametrize("skew", [-DAY, -300, 300, DAY])
@pytest.mark.parametrize("boot", ["", "another boot"])
def test_a_living_holder_keeps_its_lease_whatever_the_clocks_show(tmp_path, far, skew, boot):
    holder = far(3.0, skew, boot)
    for _ in range(2):
        with pytest.raises(Locked, match="deploy toy/2"), hold(tmp_path, "deploy toy/3", 0.2):
            pytest.fail("the holder is alive")
    holder.stdin.write("go\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "step\n"


@pytest.mark.parametrize("skew", [-DAY, -300, 300, DAY])
def test_a_dead_holder_of_another_machine_is_replaced_after_its_time(tmp_path, skew):
    dead(tmp_path, time.time() + skew)
    began = time.monotonic()
    with hold(tmp_path, "deploy toy/3", 60) as mine:
        assert 1.0 <= time.monotonic() - began < 5
        assert (mine.took_over.what, mine.fence) == ("deploy toy/2", 5)


def test_a_killed_holder_of_another_process_namespace_is_not_taken_for_dead_at_once(tmp_path):
    boot = lease.this_boot().split()[0]
    dead(tmp_path, time.time(), boot=f"{boot} pid:[1]")
    began = time.monotonic()
    with hold(tmp_path, "deploy toy/3", 60):
        assert time.monotonic() - began >= 1.0


def test_whoever_waits_for_an_uncertain_holder_is_shown_it(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_S", 0.1)
    monkeypatch.setattr(lease, "_REPORT_S", 0.3)
    dead(tmp_path, 0.0)
    lines: list[str] = []
    with hold(tmp_path, "deploy toy/3", 60, lines.append):
        pass
    assert 2 <= len(lines) <= 6
    assert "eve@far is at work" in lines[0] and "taken for dead after 1 s" in lines[0]


def test_a_stopped_holder_that_comes_back_has_lost(tmp_path, far):
    holder = far(1.0)
    first = holder_in(read_lease(tmp_path / LEASE), 1.0).fence
    os.kill(holder.pid, signal.SIGSTOP)
    try:
        with hold(tmp_path, "deploy toy/3", 60) as mine:
            assert mine.took_over.pid == holder.pid
            assert mine.fence == first + 1, "the hosts refuse what the stopped one still sends"
            os.kill(holder.pid, signal.SIGCONT)
            holder.stdin.write("go\n")
            holder.stdin.flush()
            assert holder.stdout.readline().startswith("lost: another controller has taken over")
            mine.check()
            holder.stdin.close()
            holder.wait(timeout=20)
            mine.check()
    finally:
        os.kill(holder.pid, signal.SIGCONT) if holder.poll() is None else None


def test_each_hold_has_a_higher_number_than_all_before(tmp_path):
    numbers = []
    for _ in range(3):
        with hold(tmp_path, "deploy toy/3", 60) as mine:
            numbers.append(mine.fence)
            assert int((tmp_path / FENCE).read_text()) == mine.fence
    assert numbers == [1, 2, 3]


def test_a_lost_counter_goes_on_from_the_lease_and_a_broken_one_is_a_sentence(tmp_path):
    dead(tmp_path, 0.0, ttl_s=0.0, fence=41)
    with hold(tmp_path, "deploy toy/3", 60) as mine:
        assert mine.fence == 42
    (tmp_path / FENCE).write_text("x")
    with (
        pytest.raises(FleetError, match=r"fence holds no number.*state/fence"),
        hold(tmp_path, "deploy toy/3", 60),
    ):
        pytest.fail("no number, no lease")
    assert not (tmp_path / LEASE).exists()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"7", b"[" * 100_000, b'{"token": 1}'])
def test_a_lease_that_cannot_be_read_is_a_holder_that_nobody_knows(tmp_path, content):
    (tmp_path / LEASE).write_bytes(content)
    with hold(tmp_path, "deploy toy/3", 0.5) as mine:
        assert mine.took_over.who == "somebody"


def test_a_lease_changed_by_hand_is_lost_and_not_overwritten(tmp_path):
    with hold(tmp_path, "deploy toy/2", 60) as mine:
        (tmp_path / LEASE).write_bytes(b"nonsense")
        with pytest.raises(lease.LeaseLost):
            mine.check()
    assert (tmp_path / LEASE).read_bytes() == b"nonsense"


def test_a_process_that_stands_still_in_the_guard_is_named_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "_GUARD_S", 0.3)
    holder = subprocess.Popen(["flock", "--no-fork", str(tmp_path / "lease.guard"), "sleep", "60"])
    try:
        while not (tmp_path / "lease.guard").exists():
            time.sleep(0.01)
        time.sleep(0.1)
        with (
            pytest.raises(Locked, match=r"stands still holds .*lease.guard.*fuser"),
            hold(tmp_path, "deploy toy/3", 60),
        ):
            pytest.fail("somebody is in there")
    finally:
        holder.kill()
        holder.wait()


def test_a_persons_lock_keeps_everybody_out_until_it_is_lifted(tmp_path):
    journal = Journal(tmp_path)
    lock_fleet(journal, "disks are changed", 0.1)
    time.sleep(0.3)
    with (
        pytest.raises(Locked, match=r"locked this fleet .*disks are changed.*fab unlock"),
        hold(tmp_path, "deploy toy/3", 0.1),
    ):
        pytest.fail("the lock is a person's")
    assert unlock_fleet(journal, "done", False, 0.1).reason == "disks are changed"
    with hold(tmp_path, "deploy toy/3", 60):
        pass
    assert unlock_fleet(journal, "again", False, 0.1) is None
    events = [(one.event, one.content["reason"]) for one in journal.events()]
    assert events == [("locked", "disks are changed"), ("unlocked", "done")]
    assert journal.broken_lines() == ()


def test_unlock_by_force_stops_a_controller_before_its_next_step(tmp_path, far):
    holder, journal = far(60.0), Journal(tmp_path)
    with pytest.raises(Locked, match="fab unlock --force --reason"):
        unlock_fleet(journal, "it hangs", False, 60)
    assert unlock_fleet(journal, "it hangs", True, 60).pid == holder.pid
    holder.stdin.write("go\n")
    holder.stdin.flush()
    assert holder.stdout.readline().startswith("lost:")
    (event,) = journal.events()
    assert (event.event, event.content["force"], event.content["reason"]) == (
        "unlocked", True, "it hangs",
    )  # fmt: skip
    with hold(tmp_path, "deploy toy/3", 60) as mine:
        assert mine.fence == 2


@pytest.mark.parametrize("command", ["lock", "unlock"])
@pytest.mark.parametrize("reason", ["", "  "])
def test_a_lock_needs_a_reason(tmp_path, command, reason):
    from serving.fleet.cli import lock as commands

    with pytest.raises(FleetConfigError, match=f"fab {command} --reason 'why'") as ended:
        if command == "lock":
            commands.lock(None, reason, lambda _: None)
        else:
            commands.unlock(None, reason, True)
    assert isinstance(ended.value, LockgateError) and ended.value.exit_code == 2


def test_a_holder_of_ours_survives_its_own_file(tmp_path):
    with hold(tmp_path, "deploy toy/3", 60) as mine:
        content = read_lease(tmp_path / LEASE)
        assert replace(holder_in(content, 1.0), renewed=mine.holder.renewed) == mine.holder
        assert json.loads(content)["what"] == "deploy toy/3"
