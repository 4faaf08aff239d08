"""Runs side by side: only what differs, and a broken run beside the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from conf import ConfigError
from hpc.jobs.run.comparison import (
    ComparedRun,
    compared_run,
    differing_settings,
    metric_names,
    sorted_runs,
)
from hpc.jobs.run.curve import RunCurve, read_curve
from hpc.jobs.run.folder import Run
from hpc.jobs.run.states import RunState
from tests.hpc.jobs.spec.test_job_spec import CONFIGS, spec_of


def compared(config: dict[str, Any] | None, curve: RunCurve | None = None) -> ComparedRun:
    state = RunState("r", "t", "finished", "", "", "", 1, 0, 0, None, None, None, None)
    return ComparedRun(state, spec_of(config) if config is not None else None, curve or RunCurve())


def scores(tmp_path: Path, *values: float, name: str = "validation_auc") -> RunCurve:
    path = tmp_path / "metrics.jsonl"
    lines = [f'{{"step": {step}, "{name}": {value}}}\n' for step, value in enumerate(values)]
    path.write_text("".join(lines))
    return read_curve(path)


def test_only_what_differs_is_shown():
    first = compared({"seed": 1, "optim": {"lr": 0.1, "betas": [1, 2]}, "only": True})
    second = compared({"seed": 1, "optim": {"lr": 0.2, "betas": [1, 3]}})
    assert differing_settings([first, second]) == {
        "only": [{"value": True}, {}],
        "optim.betas": [{"value": [1, 2]}, {"value": [1, 3]}],
        "optim.lr": [{"value": 0.1}, {"value": 0.2}],
    }


def test_one_and_true_are_different_and_so_are_null_and_nothing():
    assert set(differing_settings([compared({"a": 1}), compared({"a": True})])) == {"a"}
    assert set(differing_settings([compared({"a": None}), compared({})])) == {"a"}


@given(CONFIGS)
def test_a_run_does_not_differ_from_itself(config):
    assert differing_settings([compared(config), compared(config)]) == {}


def test_a_broken_run_makes_no_difference_and_hides_none():
    runs = [compared({"seed": 1}), compared(None), compared({"seed": 2})]
    assert differing_settings(runs) == {"seed": [{"value": 1}, {}, {"value": 2}]}
    assert differing_settings(runs[:2]) == {}
    assert differing_settings([compared(None)] * 2) == {}
    assert runs[1].digests == {}


def test_runs_are_sorted_by_their_best_and_those_without_it_come_last(tmp_path):
    high, low = (compared({}, scores(tmp_path, *values)) for values in ((0.9, 0.1), (0.5, 0.6)))
    none = compared({})
    assert sorted_runs([none, low, high], "validation_auc") == [high, low, none]
    less, more = (compared({}, scores(tmp_path, value, name="loss")) for value in (1, 2))
    assert sorted_runs([more, less], "loss") == [less, more]
    assert metric_names([high, less]) == ["validation_auc", "loss"]
    with pytest.raises(ConfigError, match=r"--by auc: .* Valid: validation_auc"):
        sorted_runs([low, high], "auc")


def test_a_spec_that_cannot_be_read_is_none(tmp_path):
    run = Run(tmp_path)
    run.spec_path.write_text("{{{")
    assert compared_run(run, compared(None).state).spec is None
