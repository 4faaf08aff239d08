"""The bench's goals hold only where they were measured; and a tiny run of its transfer."""

from __future__ import annotations

import json
import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.goals import Goal
from scripts.loadtest.client import Seen
from scripts.rollout_bench import __main__ as bench
from scripts.rollout_bench import goals, transfer
from scripts.rollout_bench.goals import all_goals
from scripts.rollout_bench.load import (
    CHANGE,
    RESTART,
    ROLLBACK,
    STEADY,
    LoadFigures,
    Phase,
    load_values,
    longest_gap,
)
from scripts.rollout_bench.machines import BenchError
from scripts.rollout_bench.transfer import PushFigures, TransferFigures, transfer_values


def test_a_goal_that_was_not_measured_never_holds():
    for goal in all_goals({}, {}):
        assert not goal.holds and str(goal) == "not measured"
        assert goal.as_json()["holds"] is False and goal.as_json()["value"] is None


@given(value=st.floats(allow_nan=False), bound=st.floats(allow_nan=False))
def test_a_goal_holds_by_its_sense(value, bound):
    assert Goal("g", bound, value).holds == (value <= bound)
    assert Goal("g", bound, value, "below").holds == (value < bound)
    assert Goal("g", bound, value, "at least").holds == (value >= bound)


def test_a_goal_against_a_tool_that_did_not_run_is_not_measured():
    found = TransferFigures(100, (PushFigures("lockgate", 4, 101, 1.0, 1, 0.1),
                                  PushFigures("ansible", 4, fault="no network")))  # fmt: skip
    values, bounds = transfer_values(found)
    named = {goal.name: goal for goal in all_goals(values, bounds)}
    assert not named[goals.ANSIBLE].holds and not named[goals.AGAIN].holds
    assert named[goals.BYTES].value is None, "8 hosts were not measured"


def test_figures_of_transfers_answer_their_goals():
    pushes = [PushFigures("lockgate", 8, 1090, 9.0, 1, 1.0),
              PushFigures("lockgate", 4, 1050, 5.0, 1, 1.0),
              PushFigures("rsync loop", 4, 4000, 6.0, 1, 2.0),
              PushFigures("ansible", 4, 4100, 50.0, 1, 0.9)]  # fmt: skip
    values, bounds = transfer_values(TransferFigures(1000, tuple(pushes)))
    held = {goal.name: goal.holds for goal in all_goals(values, bounds) if goal.value is not None}
    assert held == {goals.BYTES: True, goals.RSYNC: True, goals.ANSIBLE: True, goals.AGAIN: False}


def answers(began: float, ended: float, version: str, latency_s: float = 0.01) -> list[Seen]:
    steps = int((ended - began) * 10)
    return [
        Seen("us-east", version, latency_s=latency_s, ended=began + k / 10) for k in range(steps)
    ]


def test_figures_under_load_answer_their_goals():
    phases = (Phase(STEADY, 0, 10), Phase(ROLLBACK, 10, 20), Phase(CHANGE, 20, 30),
              Phase(RESTART, 30, 40))  # fmt: skip
    seen = [*answers(0, 11.5, "2"), *answers(11.0, 20, "1"), *answers(20, 30, "2", 0.015),
            *answers(30.5, 40, "2", 0.03), Seen("us-east", failure="503", ended=35)]  # fmt: skip
    values = load_values(LoadFigures(tuple(seen), phases, "2"))
    assert values[goals.ROLLBACK] == pytest.approx(1.4)
    assert values[goals.FLIP] == pytest.approx(0.4)
    assert values[goals.P99_CHANGE] == pytest.approx(1.5)
    assert values[goals.P99_RESTART] == pytest.approx(3.0)
    assert values[goals.STALL] == pytest.approx(0.6)
    assert values[goals.FAILED] == 1


def test_a_rollback_that_no_client_saw_is_not_measured():
    phases = (Phase(STEADY, 0, 10), Phase(ROLLBACK, 10, 20))
    values = load_values(LoadFigures(tuple(answers(0, 20, "2")), phases, "2"))
    assert goals.ROLLBACK not in values and goals.FLIP not in values


def test_no_answers_are_an_endless_stall():
    assert longest_gap([]) == math.inf


@pytest.mark.parametrize("words", [["rollout", "--hosts", "0"], ["rollout", "--mib", "0"],
                                   ["rollout", "--hosts", "1,99"], ["other"]])  # fmt: skip
def test_a_bench_out_of_bounds_is_refused(words):
    with pytest.raises(SystemExit) as ended:
        bench.main(words)
    assert ended.value.code == 2


def test_a_part_that_cannot_run_leaves_its_goals_not_measured(monkeypatch, capsys):
    def fail(*_: object):
        raise BenchError("no network namespaces here")

    monkeypatch.setattr(bench, "measure_transfer", fail)
    assert bench.main(["rollout", "--part", "transfer", "--json"]) == 1
    printed = capsys.readouterr()
    assert "not measured: transfer: no network namespaces here" in printed.err
    assert not any(goal["holds"] for goal in json.loads(printed.out))


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: its hosts are network namespaces")
def test_a_tiny_package_goes_to_two_hosts_and_once_over_the_network():
    try:
        found = transfer.measure_transfer((2,), 1, ["lockgate", "rsync loop"], lambda _: None)
    except BenchError as error:
        pytest.skip(f"no network namespaces here: {error}")
    ours, loop = found.of("lockgate", 2), found.of("rsync loop", 2)
    assert ours and loop, found
    assert ours.sent_bytes < 1.3 * found.package_bytes < loop.sent_bytes
    assert ours.again_bytes < 0.2 * found.package_bytes
