"""The journal after a crash, the ledger's way back, and who holds the fleet."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time

import pytest

from conf.user import user_name
from serving.fleet.rollout import lease
from serving.fleet.rollout.holder import Holder
from serving.fleet.rollout.journal import ROLLOUTS, Journal, history, operator
from serving.fleet.rollout.lease import LeaseLost, Locked, hold
from serving.fleet.rollout.records import Before, LedgerEntry


def test_half_a_line_of_a_killed_writer_is_skipped_and_closed(tmp_path):
    journal = Journal(tmp_path)
    journal.record("started", "r1", model="toy", version=2)
    with (tmp_path / ROLLOUTS).open("a") as stream:
        stream.write('{"event":"before","rollo')
    journal.record("done", "r1", model="toy", version=2)
    assert [event.event for event in journal.events("toy")] == ["started", "done"]
    assert all(event.who and event.at for event in journal.events())


def test_an_open_rollout_is_found_with_its_hosts_as_they_were(tmp_path):
    journal = Journal(tmp_path)
    first, second = Before((1,), "c1", "ready"), Before((1, 2), "c2", "drain")
    journal.record("started", "r1", model="toy", version=2)
    journal.record("before", "r1", model="toy", version=2, host="a", before=first.as_json())
    journal.record("started", "r2", model="toy", version=3)
    journal.record("before", "r2", model="toy", version=3, host="a", before=second.as_json())
    journal.record("started", "other", model="lm", version=1)
    open_one = journal.unfinished("toy")
    assert (open_one.rollout, open_one.version) == ("r2", 3)
    assert open_one.touched == {"a": first}, "what was before the first try counts"
    journal.record("rolled-back", "r2", model="toy", version=3)
    assert journal.unfinished("toy") is None
    assert journal.unfinished("lm").rollout == "other"


def test_an_undo_that_did_not_succeed_stays_open(tmp_path):
    journal = Journal(tmp_path)
    journal.record("started", "r1", model="toy", version=2)
    journal.record("manual-intervention", "r1", model="toy", version=2)
    assert journal.unfinished("toy").rollout == "r1"


@pytest.mark.parametrize(
    ("entries", "stack"),
    [
        ([], []),
        ([("deploy", 1), ("deploy", 2)], [1, 2]),
        ([("deploy", 1), ("deploy", 2), ("rollback", 1)], [1]),
        ([("deploy", 1), ("deploy", 2), ("rollback", 1), ("deploy", 3)], [1, 3]),
        ([("deploy", 1), ("deploy", 2), ("deploy", 3), ("rollback", 2), ("rollback", 1)], [1]),
        ([("deploy", 2), ("rollback", 1)], [1]),
        ([("deploy", 2), ("deploy", 2)], [2]),
    ],
)
def test_the_way_back_never_leads_to_what_a_rollback_left(entries, stack):
    at = "2026-01-01T00:00:00+00:00"
    assert history([LedgerEntry(at, "eve@far", a, "r1", "toy", v) for a, v in entries]) == stack


def holder(**changes) -> Holder:
    values = {"token": "t", "who": "eve@far", "what": "deploy toy/2", "boot": "b1", "pid": 1,
              "start": "5", "since": 100.0, "renewed": 7, "ttl_s": 60.0}  # fmt: skip
    return Holder(**{**values, **changes})


@pytest.mark.parametrize(
    ("held", "still_s", "boot", "alive", "is_free"),
    [
        (None, 0, "b1", False, True),
        (holder(), 30, "b1", True, False),
        (holder(), 30, "b2", False, False),  # of another machine: its process cannot be seen
        (holder(), 30, "b1", False, True),  # killed on this machine
        (holder(), 61, "b2", True, True),  # its number stood still for its time to live
        (holder(reason="disks"), 1e9, "b1", False, False),  # a person's lock
    ],
)
def test_when_a_lease_may_be_taken(held, still_s, boot, alive, is_free):
    assert lease.free(held, still_s, boot, alive) is is_free


def test_the_second_controller_is_told_who_is_first(tmp_path):
    told = pytest.raises(Locked, match=r"at work on this fleet since .*deploy toy/2")
    with hold(tmp_path, "deploy toy/2", 60), told, hold(tmp_path, "deploy toy/3", 60):
        pytest.fail("two controllers at once")
    with hold(tmp_path, "deploy toy/3", 60) as mine:
        assert mine.took_over is None


def test_a_killed_holder_of_this_machine_is_replaced_at_once(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from serving.fleet.rollout.lease import hold\n"
        "with hold(Path(sys.argv[1]), 'deploy toy/2', 600):\n"
        "    print('held', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    with pytest.raises(Locked), hold(tmp_path, "deploy toy/3", 60):
        pytest.fail("the holder is alive")
    process.kill()
    process.wait()
    with hold(tmp_path, "deploy toy/3", 60) as mine:
        assert mine.took_over.what == "deploy toy/2"


def test_a_lease_is_renewed_while_its_holder_works(tmp_path):
    with hold(tmp_path, "deploy toy/2", 0.6) as mine:
        deadline = time.monotonic() + 20
        first = json.loads((tmp_path / lease.LEASE).read_text())["renewed"]
        while json.loads((tmp_path / lease.LEASE).read_text())["renewed"] == first:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        mine.check()


def test_who_lost_the_lease_finds_out_and_leaves_the_new_one_alone(tmp_path):
    with hold(tmp_path, "deploy toy/2", 60) as mine:
        (tmp_path / lease.LEASE).write_text(json.dumps(vars(holder())))
        with pytest.raises(LeaseLost, match="taken over"):
            mine.check()
    assert json.loads((tmp_path / lease.LEASE).read_text())["token"] == "t"


@pytest.mark.parametrize(
    ("variables", "who"),
    [
        ({}, "{account}@{machine}"),
        ({"SUDO_USER": "anna"}, "anna as {account}@{machine}"),
        ({"SUDO_USER": "anna", "LOCKGATE_AS": "berta"}, "berta as {account}@{machine}"),
        ({"LOCKGATE_AS": "", "SUDO_USER": ""}, "{account}@{machine}"),
        ({"LOCKGATE_AS": "a\n\x1b[2J"}, "'a\\n\\x1b[2J' as {account}@{machine}"),
    ],
)
def test_the_operator_is_the_person_behind_the_account(monkeypatch, variables, who):
    for name in ("SUDO_USER", "LOCKGATE_AS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert operator() == who.format(account=user_name(), machine=socket.gethostname())


def test_a_reason_that_is_no_utf8_costs_no_rollout(tmp_path):
    journal = Journal(tmp_path)
    journal.record("started", "r1", model="toy", version=1, reason="caf\udce9")
    (event,) = journal.events()
    assert event.content["reason"] == "caf\udce9" and journal.broken_lines() == ()


def test_a_rollout_in_the_ledger_is_finished_whatever_else_is_missing(tmp_path):
    journal = Journal(tmp_path)
    before = Before((1,), "c1", "ready").as_json()
    journal.record("started", "r1", model="toy", version=2, action="rollback")
    journal.record("before", "r1", model="toy", version=2, host="a", before=before)
    journal.record("parked", "r1", model="toy", version=2, host="b", edge="ready")
    assert journal.unfinished("toy").action == "rollback"
    journal.enter("rollback", "r1", model="toy", version=2)
    assert journal.unfinished("toy") is None
    found = journal.open_rollout("toy")
    assert found.committed and found.touched == {}, "nothing of it is to be undone"
    assert found.parked == {"b": "ready"}, "and who was taken out of traffic is known"


def test_a_start_of_an_older_journal_is_a_deployment(tmp_path):
    journal = Journal(tmp_path)
    journal.record("started", "r1", model="toy", version=2)
    found = journal.unfinished("toy")
    assert (found.action, found.routing, found.parked) == ("deploy", {}, {})


def test_versions_are_warm_where_they_were_proven_last(tmp_path):
    journal = Journal(tmp_path)
    before = Before((1,), "c1", "ready").as_json()
    journal.record("proven", "r1", model="toy", version=2, host="a", versions=[1, 2])
    journal.record("proven", "r1", model="lm", version=7, host="a", versions=[7])
    journal.record("proven", "r1", model="toy", version=2, host="b", versions=[1, 2])
    journal.record("before", "r2", model="toy", version=3, host="b", before=before, versions=[2, 3])
    assert journal.warm("toy") == {"a": (1, 2), "b": (2,)}


def test_a_quarantine_lasts_until_it_is_lifted(tmp_path):
    journal = Journal(tmp_path)
    journal.record("quarantined", "host-1", host="a", reason="disk")
    journal.record("quarantined", "r9", model="toy", version=2, host="b", reason="dead")
    assert journal.quarantined() == {"a": "disk", "b": "dead"}
    journal.record("unquarantined", "host-2", host="a", reason="")
    assert journal.quarantined() == {"b": "dead"}


@pytest.mark.parametrize("ends", ["admitted", "unquarantined", "quarantined", "drained"])
def test_a_host_is_on_standby_until_it_is_admitted_or_a_person_has_another_word(tmp_path, ends):
    journal = Journal(tmp_path)
    journal.record("standby", "host-1", host="a", reason="night")
    journal.record("standby", "host-1", host="b", reason="night")
    journal.record("restarted", "host-2", host="b", reason="")
    journal.record(ends, "host-3", host="a", reason="")
    assert journal.standby() == {"b": "night"}


def test_the_last_number_of_instances_counts_and_an_odd_one_is_no_record(tmp_path):
    journal = Journal(tmp_path)
    assert journal.instances("toy") is None
    for count in (2, 3):
        journal.record("scaled", "scale-1", model="toy", version=2, instances=count)
    for odd in (0, -1, "4", True):
        journal.record("scaled", "scale-2", model="toy", version=2, instances=odd)
    journal.record("scaled", "scale-3", model="other", version=2, instances=9)
    assert journal.instances("toy") == 3 and len(journal.broken_lines()) == 4
    journal.record("scaled", "scale-4", model="toy", version=2, instances=None)
    assert journal.instances("toy") is None


@pytest.mark.parametrize(
    ("found", "named", "version"),
    [
        (None, None, 2),
        (None, 1, 1),
        (("deploy", 4, False), None, 3),
        (("deploy", 3, True), None, 2),
        (("rollback", 1, False), None, 1),
        (("rollback", 1, True), None, 1),
        (("heal", 3, False), None, 2),
    ],
)
def test_a_rollback_goes_where_status_advises(found, named, version):
    from serving.fleet.rollout.advice import next_command, version_back
    from serving.fleet.rollout.journal import Unfinished

    action, of, committed = found or ("deploy", 1, False)
    left = Unfinished("r1", "toy", of, {}, action, committed=committed)
    assert version_back("toy", [1, 2, 3], left if found else None, named) == version
    if found and found[0] == "rollback":
        assert f"fab rollback --model toy --version {version}" in next_command(left, 3)
