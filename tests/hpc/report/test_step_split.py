"""The parts of a step over a run, and the notes on time that they are the evidence of."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc.report.logged_metrics import LoggedMetrics, logged_metrics
from hpc.report.notes import ReportNotes
from hpc.report.page import report_page
from hpc.report.reported_run import reported_runs
from hpc.report.sentences import waste_notes
from hpc.report.step_split import split_svg, step_split
from hpc.report.timeline import run_spans
from tests.hpc.report.written_runs import BEGAN, metric_lines, write_run

NAME = "flights-20260101-000001-aaaaaa"
PARTS = ("data_wait", "forward", "backward", "optimizer", "communication")


def account(wait: float, stall: float = 0.0) -> list[dict]:
    """Lines as a run with the account of its steps logs them; a checkpoint each 100 steps."""
    found = []
    for line in metric_lines():
        if "loss" in line:
            line = {name: value for name, value in line.items() if name != "data_seconds"}
            rest = (2.0 - wait) / 5
            line |= {f"{part}_seconds": rest for part in PARTS} | {"data_wait_seconds": wait}
            line |= {"peak_rss_bytes": 2.1e9, "peak_rss_share": 0.07, "mfu": 0.31}
        found.append(line)
        if stall and "loss" in line and line["step"] % 100 == 0:
            found.append({
                "time": line["time"], "step": line["step"], "checkpoint_stall_seconds": stall,
            })  # fmt: skip
    return found


def test_the_parts_and_the_rest_are_the_whole_step(tmp_path):
    run = write_run(tmp_path, NAME, lines=account(0.4, stall=9.0))
    split = step_split(logged_metrics(run.metrics))
    assert set(split.parts) == {*PARTS, "other"}  # the stall is between two steps
    assert dict(split.means)["data_wait"] == pytest.approx(0.4)
    assert dict(split.means)["other"] == pytest.approx(2.0 - 0.4 - 4 * 0.32)
    assert sum(split.shares.values()) == pytest.approx(1.0)
    assert len(split.steps) == 40


VALUES = st.none() | st.floats(0, 1e6)


@given(st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=1, max_size=300), st.integers(12, 400))
def test_a_split_of_any_numbers_is_drawn_within_its_frame(rows, columns):
    names = ("step_seconds", "a_seconds", "b_seconds")
    curves = {
        name: tuple((float(step), row[place]) for step, row in enumerate(rows))
        for place, name in enumerate(names)
    }
    split = step_split(LoggedMetrics(curves, ()))
    if split is None:
        return
    svg = split_svg(split, split.steps[-1], columns)
    numbers = [float(one) for pair in re.findall(r'points="([^"]*)"', svg)
               for one in re.split("[ ,]", pair)]  # fmt: skip
    assert all(-3 <= number <= 520 for number in numbers)
    assert max(len(pair.split()) for pair in re.findall(r'points="([^"]*)"', svg)) <= 240


def test_a_run_without_an_account_has_no_split():
    assert step_split(LoggedMetrics({"step_seconds": ((1.0, 2.0),)}, ())) is None
    assert step_split(LoggedMetrics({"forward_seconds": ((1.0, 2.0),)}, ())) is None


def test_a_stalled_checkpoint_is_in_the_time_line_and_taken_off_of_training(tmp_path):
    (run,) = reported_runs([write_run(tmp_path, NAME, lines=account(0.4, stall=9.0))])
    spans = run_spans(run.times, run.metrics.lines, 400)
    stalled = [(round(one.begin - BEGAN), round(one.seconds)) for one in spans
               if one.kind == "stalled"]  # fmt: skip
    assert stalled == [(271, 9), (491, 9), (711, 9), (931, 9)]
    text = report_page([run], ReportNotes(), BEGAN + 5000)
    assert "the checkpoint of step 100 held up the steps: 9.0 s" in text
    assert text.count("<polygon") == 6
    assert "data_wait" in text


@pytest.mark.parametrize(
    ("wait", "stall", "expected"),
    [
        (0.1, 0.1, []),
        (0.6, 0.1, ["data: 30% of a step is the wait"]),
        (0.1, 60.0, ["checkpoints: they held up the steps for 4 min of 14 min 20 s"]),
        (0.9, 60.0, ["data: 45%", "checkpoints: "]),
    ],
)
def test_time_that_was_lost_is_a_note_and_little_of_it_is_none(tmp_path, wait, stall, expected):
    (run,) = reported_runs([write_run(tmp_path, NAME, lines=account(wait, stall))])
    notes = [one for one in waste_notes(run, None) if not one.startswith(("memory", "time limit"))]
    assert len(notes) == len(expected)
    assert all(note.startswith(words) for note, words in zip(notes, expected, strict=True))


def test_memory_that_was_asked_for_and_not_used_has_the_next_request(tmp_path):
    (run,) = reported_runs([write_run(tmp_path, NAME, lines=account(0.1))])
    note = "memory: asked 64 GB of each node, used at most 3.9 GB"
    own = f"{note} (the peak of rank 0, for each rank); ask for cluster.mem_gb=6"
    assert own in waste_notes(run, None)
    assert any(one.startswith("memory: asked 64 GB of each node, used at most 8 GB; ask for ")
               for one in waste_notes(run, 4 << 30))  # fmt: skip
    tight = replace(run, config={**run.config, "cluster.mem_gb": 6.0})
    assert all("ask for" not in one for one in waste_notes(tight, None))
    bare = replace(run, metrics=LoggedMetrics({}, ()))
    assert not any(one.startswith("memory") for one in waste_notes(bare, None))
