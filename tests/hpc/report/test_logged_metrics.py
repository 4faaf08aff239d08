from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc.jobs.run.metric_lines import MOST_METRICS
from hpc.report.logged_metrics import logged_metrics, thinned

VALUES = st.none() | st.floats(-1e6, 1e6)
CURVES = st.lists(st.tuples(st.integers(0, 10_000), VALUES), min_size=1, max_size=400).map(
    lambda points: sorted(points, key=lambda point: point[0])
)


@given(CURVES, st.integers(1, 40))
def test_a_thinned_curve_keeps_its_ends_and_its_extremes(points, columns):
    kept = thinned(points, columns)
    assert len(kept) <= max(2 * columns + 2, min(len(points), 2 * columns))
    assert set(kept) <= set(points)
    assert [step for step, _ in kept] == sorted(step for step, _ in kept)
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    values = [value for _, value in points if value is not None]
    for extreme in (min, max):
        assert not values or extreme(values) in [value for _, value in kept]


def test_a_spike_of_one_step_in_100_000_is_seen():
    points = [(float(step), 1.0) for step in range(100_000)]
    points[54_321] = (54_321.0, 9.0)
    assert (54_321.0, 9.0) in thinned(points, 400)
    assert len(thinned(points, 400)) < 900


@pytest.mark.parametrize(
    "line",
    [
        b"{", b"3", b"[1]", b"\xff\xfe", b'{"loss": 1}', b'{"step": "9", "loss": 1}',
        b'{"step": NaN, "loss": 1}', b'{"step": -1, "loss": 1}', b'{"step": true, "loss": 1}',
        b'{"step": 1' + b"0" * 400 + b', "loss": 1}', b"[" * 50_000, b'{"step": 5}',
        b'{"step": 5, "loss": "<b>"}', b'{"step": 5, "loss": {"a": [1]}}',
        b'{"step": 5, "loss": true}',
    ],
)  # fmt: skip
def test_a_line_of_another_kind_costs_itself_alone(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    good = [
        b'{"time": 1000.5, "step": 1, "loss": 3, "step_seconds": 0.5}',
        b'{"step": 2, "loss": 2}',
    ]
    path.write_bytes(good[0] + b"\n" + line + b"\n" + good[1] + b"\n")
    found = logged_metrics(path)
    assert found.curves["loss"] == ((1.0, 3.0), (2.0, 2.0))
    assert [(one.at, one.step) for one in found.lines] == [(1000.5, 1.0)]


@pytest.mark.parametrize("value", ["null", "NaN", "Infinity", "-Infinity", "1e400", "9" * 400])
def test_what_is_no_finite_number_is_a_gap(tmp_path, value):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1, "loss": 4}}\n{{"step": 2, "loss": {value}}}\n')
    found = logged_metrics(path)
    assert found.curves["loss"] == ((1.0, 4.0), (2.0, None))
    assert found.last("loss") == 4.0


def test_a_file_that_is_no_file_and_names_without_end(tmp_path):
    assert logged_metrics(tmp_path).curves == {}
    assert logged_metrics(tmp_path / "none").curves == {}
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"step": 1} | {f"m{number}": 1.0 for number in range(500)}))
    assert len(logged_metrics(path).curves) == MOST_METRICS
