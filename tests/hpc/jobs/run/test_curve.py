"""metrics.jsonl as a whole: last and best values, lines of other hands, and kept checkpoints."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc.jobs.run.checkpoints import best_checkpoint, kept_checkpoints
from hpc.jobs.run.curve import RunCurve, read_curve
from hpc.jobs.run.folder import Run


def written(path: Path, *lines: dict) -> RunCurve:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_curve(path)


def test_last_and_best_are_of_their_own_steps(tmp_path):
    curve = written(
        tmp_path / "metrics.jsonl",
        {"time": 1.0, "step": 10, "loss": 0.5, "lr": 1.0, "rows_per_second": 9, "step_seconds": 2},
        {"time": 2.0, "step": 10, "validation_auc": 0.7, "validation_log_loss": 0.2},
        {"time": 3.0, "step": 20, "loss": 0.6, "lr": 0.5, "rows_per_second": 9, "step_seconds": 4},
        {"time": 4.0, "step": 20, "validation_auc": 0.6, "validation_log_loss": 0.1},
    )
    assert (curve.step, curve.step_seconds, curve.problem) == (20, 3.0, None)
    assert list(curve.metrics) == ["loss", "validation_auc", "validation_log_loss"]
    loss, auc = curve.metrics["loss"], curve.metrics["validation_auc"]
    assert (loss.last, loss.last_step, loss.best, loss.best_step) == (0.6, 20, 0.5, 10)
    assert (auc.last, auc.best, auc.best_step, auc.lower_is_better) == (0.6, 0.7, 10, False)
    assert curve.metrics["validation_log_loss"].best == 0.1
    assert curve.evaluations[20] == {"validation_auc": 0.6, "validation_log_loss": 0.1}
    assert curve.main_metric == "validation_auc"


@pytest.mark.parametrize(
    ("name", "lower"),
    [
        ("loss", True), ("validation_log_loss", True), ("validation_bits_per_byte", True),
        ("validation_nats_per_token", True), ("validation_rmse", True), ("validation_auc", False),
        ("validation_accuracy", False), ("validation_closeness", False),
    ],
)  # fmt: skip
def test_the_better_side_of_a_metric_is_in_its_name(name, lower, tmp_path):
    curve = written(tmp_path / "m", {"step": 1, name: 0.5}, {"step": 2, name: 0.25})
    assert curve.metrics[name].lower_is_better is lower
    assert curve.metrics[name].best_step == (2 if lower else 1)


@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_best_is_the_least_or_the_greatest(values, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "best.jsonl"
    lines = [{"step": step, "loss": value, "auc": value} for step, value in enumerate(values)]
    metrics = written(path, *lines).metrics
    assert (metrics["loss"].best, metrics["auc"].best) == (min(values), max(values))
    assert metrics["loss"].last == values[-1]


@pytest.mark.parametrize(
    ("line", "unusable"),
    [
        ('{"step": 2, "lo', 0),  # being written
        ("nonsense\n", 1),
        ("[1]\n", 1),
        ('{"loss": 1}\n', 1),
        ('{"step": "x"}\n', 1),
        ("[" * 60000 + "\n", 1),
        ('{"step": 1, "loss": NaN, "flag": true, "far": 1' + "0" * 400 + "}\n", 0),
    ],
)
def test_a_line_of_another_hand_hides_no_other(line, unusable, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 0.5}\n' + line)
    curve = read_curve(path)
    assert list(curve.metrics) == ["loss"]
    assert curve.metrics["loss"].best == 0.5
    assert bool(curve.problem) == bool(unusable)


def test_what_is_no_file_is_a_problem_and_what_is_missing_is_none(tmp_path):
    assert read_curve(tmp_path / "metrics.jsonl") == RunCurve()
    os.mkfifo(tmp_path / "pipe")
    assert "cannot be read" in str(read_curve(tmp_path / "pipe").problem)


def test_the_best_checkpoint_is_one_that_is_kept_and_was_evaluated(tmp_path):
    run = Run(tmp_path)
    for step in (10, 20, 30, 40):
        (tmp_path / "checkpoints" / f"{step:08d}").mkdir(parents=True)
        if step != 40:  # half removed: its manifest went first
            (tmp_path / "checkpoints" / f"{step:08d}" / "manifest.json").write_text("{}")
    (tmp_path / "checkpoints" / ".staging-50").mkdir()
    kept = kept_checkpoints(run)
    assert [one.step for one in kept] == [10, 20, 30]
    lines = [(5, 0.9), (10, 0.4), (20, 0.6), (40, 0.8)]
    curve = written(run.metrics, *({"step": step, "validation_auc": auc} for step, auc in lines))
    assert best_checkpoint(kept, curve) == kept[1]
    worse = written(run.metrics, *({"step": step, "validation_loss": loss} for step, loss in lines))
    assert best_checkpoint(kept, worse) == kept[0]
    assert best_checkpoint(kept, RunCurve()) is None
    assert kept_checkpoints(Run(tmp_path / "nothing")) == ()
