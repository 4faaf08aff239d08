"""Orders to a running rollout: lines that last, each for one rollout, refused when none runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import REFUSED
from serving.fleet.cli.controls import order_rollout
from serving.fleet.errors import FleetRefusal
from serving.fleet.rollout.holder import LEASE, holder_in, read_lease, write_lease
from serving.fleet.rollout.journal import Journal
from serving.fleet.rollout.lease import hold, lock_fleet
from serving.fleet.rollout.orders import ORDERS, give_order, pending_order, read_orders

AT = "2026-01-01T00:00:00.000+00:00"


def line(rollout: str = "r1", order: str = "pause", **changes) -> bytes:
    content = {"at": AT, "who": "eve@far", "rollout": rollout, "order": order, "reason": "",
               **changes}  # fmt: skip
    return json.dumps(content).encode()


def test_orders_come_in_turn_and_each_once(tmp_path):
    give_order(tmp_path, "r1", "pause", "lunch")
    give_order(tmp_path, "r1", "resume", "")
    first = pending_order(tmp_path, "r1")
    assert (first.order, first.reason, first.number) == ("pause", "lunch", 1)
    second = pending_order(tmp_path, "r1", after=first.number)
    assert (second.order, second.number) == ("resume", 2)
    assert pending_order(tmp_path, "r1", after=second.number) is None


def test_an_order_to_another_rollout_is_none(tmp_path):
    assert pending_order(tmp_path, "r1") is None
    give_order(tmp_path, "r0", "abort", "")
    assert pending_order(tmp_path, "r1") is None
    give_order(tmp_path, "r1", "promote", "")
    assert pending_order(tmp_path, "r1").number == 1, "counted among its own"


GOOD = [line("r1", "pause"), line("r1", "abort", reason="é\u2028"), line("r1", "resume")]
FILE = b"".join(one + b"\n" for one in GOOD)


@settings(max_examples=300, deadline=None)
@given(
    place=st.integers(0, len(FILE)),
    odd=st.binary(max_size=40)
    | st.sampled_from([b"\n", b"\r\n", b"7\n", b'{"order":"abort"}\n', line("r1", "stop") + b"\n"])
    | st.text(max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass")),
)
def test_one_odd_line_never_hides_the_rest(tmp_path_factory, place, odd):
    folder = tmp_path_factory.getbasetemp()
    data = FILE[:place] + odd + FILE[place:]
    (folder / ORDERS).write_bytes(data)
    whole = [one for one in data.split(b"\n") if one.strip(b"\r") in GOOD]
    wanted = [json.loads(one)["order"] for one in whole]
    found = [one.order for one in read_orders(folder).entries]
    place_of = 0
    for order in wanted:  # in order, and none of them lost
        place_of = found.index(order, place_of) + 1
    assert all(str(broken) and "\n" not in str(broken) for broken in read_orders(folder).broken)


@settings(max_examples=200, deadline=None)
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
        max_leaves=20,
    ),
    key=st.sampled_from(["at", "who", "rollout", "order", "reason"]),
)
def test_a_line_of_any_json_is_an_order_or_broken(tmp_path_factory, value, key):
    folder = tmp_path_factory.getbasetemp()
    lines = [json.dumps(value), json.dumps({**json.loads(line()), key: value}), line().decode()]
    (folder / ORDERS).write_text("\n".join(lines) + "\n")
    found = read_orders(folder)
    assert len(found.entries) + len(found.broken) == 3
    assert found.entries[-1].order == "pause"
    pending_order(folder, "r1")


def test_half_a_letter_in_a_reason_is_not_written(tmp_path):
    give_order(tmp_path, "r1", "pause", "é")
    with (tmp_path / ORDERS).open("ab") as stream:
        stream.write(b'{"at":"2026')
    assert pending_order(tmp_path, "r1").order == "pause"
    give_order(tmp_path, "r1", "resume", "")
    assert [one.order for one in read_orders(tmp_path).entries] == ["pause", "resume"]


def controls(folder: Path):
    return SimpleNamespace(journal=Journal(folder), config=SimpleNamespace(lock_ttl_s=30))


def start(folder: Path, rollout: str, **content) -> None:
    Journal(folder).record("started", rollout, model="toy", version=2, waves=[], **content)


def test_an_order_goes_to_the_rollout_that_is_running(tmp_path):
    start(tmp_path, "r0")
    with hold(tmp_path, "deploy toy/2", 30):
        start(tmp_path, "r1", action="deploy")
        said = order_rollout(controls(tmp_path), "pause", " lunch ")
    assert said.startswith("r1 stops before its next step and stays as it is")
    assert pending_order(tmp_path, "r1").reason == "lunch"
    assert pending_order(tmp_path, "r0") is None


def nobody(folder: Path) -> None:
    start(folder, "r1")


def ended(folder: Path) -> None:
    Journal(folder).record("done", "r1", model="toy", version=2)


def killed(folder: Path) -> None:
    """Its lease names a process of this boot that is no more."""
    start(folder, "r1")
    holder = holder_in(read_lease(folder / LEASE), 30)
    write_lease(folder / LEASE, replace(holder, pid=2**22 - 1, start="1"))


@pytest.mark.parametrize(
    ("held", "before", "inside"),
    [
        (False, None, None),
        (False, nobody, None),
        (True, None, lambda folder: None),
        (True, None, lambda folder: (start(folder, "r1"), ended(folder))),
        (True, None, killed),
    ],
    ids=["nothing at all", "no controller", "it only plans", "it has ended", "it was killed"],
)
def test_without_a_running_rollout_orders_are_refused(tmp_path, held, before, inside):
    if before:
        before(tmp_path)
    if not held:
        with pytest.raises(FleetRefusal, match="no rollout is running: there is nothing to abort"):
            order_rollout(controls(tmp_path), "abort", "")
        return
    with hold(tmp_path, "deploy toy/2", 30):
        inside(tmp_path)
        with pytest.raises(FleetRefusal, match="no rollout is running"):
            order_rollout(controls(tmp_path), "abort", "")
    assert read_orders(tmp_path).entries == ()


def test_the_open_rollout_of_a_killed_controller_gets_no_order_of_its_successor(tmp_path):
    journal = Journal(tmp_path)
    start(tmp_path, "r0")
    path = tmp_path / "rollouts.jsonl"
    path.write_text(path.read_text().replace(journal.events()[0].at, AT))
    with hold(tmp_path, "deploy toy/2", 30), pytest.raises(FleetRefusal, match="no rollout"):
        order_rollout(controls(tmp_path), "pause", "")


def test_the_lock_of_a_person_is_no_rollout(tmp_path):
    start(tmp_path, "r1")
    lock_fleet(Journal(tmp_path), "fire drill", 30)
    with pytest.raises(FleetRefusal, match="no rollout is running"):
        order_rollout(controls(tmp_path), "pause", "")


def test_nothing_stops_a_rollback(tmp_path):
    with hold(tmp_path, "rollback toy/1", 30):
        start(tmp_path, "r1", action="rollback")
        with pytest.raises(FleetRefusal, match="a rollback, which goes to its end") as refused:
            order_rollout(controls(tmp_path), "abort", "")
    assert refused.value.exit_code == REFUSED
