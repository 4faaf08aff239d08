from __future__ import annotations

import os

from hpc.report.reported_run import reported_runs
from hpc.report.timeline import run_spans
from tests.hpc.report.written_runs import BEGAN, ended_after, write_run

NAME = "flights-20260101-000001-aaaaaa"


def spans(run):
    (found,) = reported_runs([run])
    return [
        (one.kind, round(one.begin - BEGAN), round(one.end - BEGAN))
        for one in run_spans(found.times, found.metrics.lines, found.state.steps)
    ]


def test_a_run_of_one_attempt_has_every_span(tmp_path):
    assert spans(write_run(tmp_path, NAME)) == [
        ("queued", 0, 60), ("starting", 60, 80), ("training", 80, 940),
        ("evaluation", 280, 300), ("evaluation", 500, 520), ("evaluation", 720, 740),
        ("evaluation", 940, 960), ("export", 960, 1002),
    ]  # fmt: skip


def test_a_requeue_is_a_gap_between_two_attempts(tmp_path):
    found = spans(write_run(tmp_path, NAME, resumed=(240,)))
    ended = ended_after((240,), 1)
    assert ("requeued", ended, ended + 280) in found
    assert [one for one in found if one[0] == "starting"] == [
        ("starting", 60, 80), ("starting", ended + 280, ended + 296),
    ]  # fmt: skip
    assert [one[0] for one in found].count("training") == 2


def test_a_middle_attempt_whose_beginning_nobody_wrote_has_no_start(tmp_path):
    run = write_run(tmp_path, NAME, resumed=(100, 240))
    found = reported_runs([run])[0]
    assert [one.began is None for one in found.times.attempts] == [False, True, False]
    assert [one[0] for one in spans(run)].count("starting") == 2
    labels = [one.label for one in run_spans(found.times, found.metrics.lines, 400)]
    assert "requeued and starting" in labels and "steps 101 to 240" in labels


def test_a_copied_folder_has_lost_the_times_of_its_files(tmp_path):
    run = write_run(tmp_path, NAME, resumed=(240,))
    for path in run.folder.rglob("*"):
        os.utime(path, (BEGAN + 9e6, BEGAN + 9e6))
    kinds = {one[0] for one in spans(run)}
    assert kinds == {"queued", "starting", "training", "evaluation"}  # no requeue, no export


def test_a_run_that_wrote_nothing_has_no_times(tmp_path):
    run = write_run(tmp_path, NAME, lines=[], state="running")
    run.job.unlink()
    run.status.write_text("{")
    assert spans(run) == []
