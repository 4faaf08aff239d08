"""The bench of training: goals hold only where they were measured, and tiny turns of its loops."""

from __future__ import annotations

import json

import pytest

from scripts.train_bench import __main__ as bench
from scripts.train_bench import one_process, steps
from scripts.train_bench.failure import BenchFailed
from scripts.train_bench.goals import DEEPSPEED, PROMPT, SWEEP_RPCS, SWEEP_TOOL, TORCH, all_goals
from scripts.train_bench.stall import StallFigures, stall_values
from scripts.train_bench.steps import StepFigures, step_rows, step_values
from scripts.train_bench.submit import SubmitFigures, rpc_count, submit_values

SDIAG = """\
Remote Procedure Call statistics by message type
\tREQUEST_PARTITION_INFO                  ( 2009) count:20     ave_time:100    total_time:2000
\tREQUEST_SUBMIT_BATCH_JOB                ( 4003) count:40     ave_time:900    total_time:36000
\tREQUEST_JOB_INFO                        ( 2003) count:3      ave_time:300    total_time:900
\tMESSAGE_NODE_REGISTRATION_STATUS        ( 1002) count:2      ave_time:300    total_time:600

Remote Procedure Call statistics by user
\ttrain           (    1001) count:43     ave_time:868    total_time:36900
"""


def figures(ours: float, deepspeed: float, torch: float) -> list[StepFigures]:
    sharded = {"Lockgate": [ours] * 4, "bare DeepSpeed": [deepspeed] * 4}
    plain = {"Lockgate": [ours] * 4, "bare PyTorch": [torch] * 4}
    missing = {"Hugging Face Trainer": "No module named 'accelerate'"}
    return [StepFigures(2, sharded, sharded, {}), StepFigures(0, plain, plain, missing)]


def test_a_step_is_compared_with_the_one_beside_it():
    busy = [1.0, 10.0, 1.0, 10.0, 4.0]  # our first step follows their first
    found = StepFigures(2, {"Lockgate": [2 * one for one in busy[:4]], "x": busy}, {}, {})
    assert found.ratio("x", found.wall) == 2


def test_goals_hold_by_their_ratios_and_a_loop_that_is_missing_is_named():
    slow, fast = figures(1.1, 1.0, 1.09), figures(1.02, 1.0, 1.0)
    held = {goal.name: goal.holds for goal in all_goals(step_values(slow), {})}
    assert (held[DEEPSPEED], held[TORCH]) == (False, True)
    assert all(goal.holds for goal in all_goals(step_values(fast), {})[:2])
    assert any("accelerate" in cell for row in step_rows(slow) for cell in row)


def test_what_was_not_measured_does_not_hold():
    for goal in all_goals({}, {}):
        assert goal.as_json() == {
            "goal": goal.name, "value": None, "bound": goal.bound, "holds": False,
        }  # fmt: skip
    assert stall_values(StallFigures([0.1, 0.2, 0.3], [2.0])).popitem()[1] == 0.1


def test_a_launcher_that_did_not_run_is_no_bound():
    values, bounds = submit_values(SubmitFigures([0.5, 9.0, 0.6], 2.5, 45, None, None))
    assert (values[PROMPT], bounds) == (0.6, {})
    goals = {goal.name: goal for goal in all_goals(values, bounds)}
    assert not goals[SWEEP_TOOL].holds and goals[SWEEP_TOOL].bound is None
    values, bounds = submit_values(SubmitFigures([0.5], 2.5, 45, 4.0, 45))
    goals = {goal.name: goal for goal in all_goals(values, bounds)}
    assert goals[SWEEP_TOOL].holds
    assert not goals[SWEEP_RPCS].holds  # as many are not fewer


def test_rpcs_are_counted_once_and_without_the_daemons():
    assert rpc_count(SDIAG) == 43


def test_turns_leave_out_a_loop_that_cannot_be_imported():
    def missing():
        raise ImportError("no accelerate")
        yield

    def steady():
        while True:
            yield

    turns = one_process.Turns({"a": steady(), "b": missing()}, rounds=3)
    calls = 0
    while not turns():
        calls += 1
    found = turns.figures()
    assert calls == 3 + one_process.WARM - 1
    assert found["missing"] == {"b": "no accelerate"}
    assert {name: len(found["wall"][name]) for name in found["wall"]} == {"Lockgate": 2, "a": 3}


def test_json_lists_every_goal_and_a_part_that_failed_is_named(monkeypatch, capsys):
    monkeypatch.setattr(bench, "measure_steps", lambda rounds, progress: figures(1.0, 1.0, 1.0))

    def no_site(task, progress):
        raise BenchFailed("sdiag: slurmctld is not there")

    monkeypatch.setattr(bench, "measure_submit", no_site)
    assert bench.main(["train", "--json", "--part", "step", "--part", "submit"]) == 1
    printed = capsys.readouterr()
    listed = json.loads(printed.out)
    assert len(listed) == len(all_goals({}, {}))
    assert [one["goal"] for one in listed if one["holds"]] == [DEEPSPEED, TORCH]
    assert "not measured: submit: sdiag: slurmctld is not there" in printed.err
    assert bench.main(["train", "--part", "step"]) == 0


def test_a_wrong_word_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        bench.main(["train", "--rounds", "1"])
    assert "choose 2 to" in capsys.readouterr().err


@pytest.mark.full
def test_the_loops_take_turns_for_real():
    for found in steps.measure_steps(2, print):
        assert {*found.wall, *found.missing} == {"Lockgate", *steps.STAGES[found.zero_stage]}
        assert all(second > 0 for seconds in found.wall.values() for second in seconds)
