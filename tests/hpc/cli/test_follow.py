"""`lockgate logs -f` for people: lines in a pipe, and lines above a bar on a terminal."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from rich.console import Console

from hpc.cli.follow import clock, follow_view, local_time, state_sentence, time_left
from hpc.jobs.run.folder import Run
from hpc.jobs.run.logs import LogLine
from hpc.jobs.run.states import QUEUED, REQUEUED, RUNNING, UNKNOWN, RunState


def state(word: str, attempt: int = 1, step: int = 400, detail: str = "", steps: int = 1000):
    return RunState(
        "t-1", "t", word, detail, "squeue", "4", attempt, step, steps, None, None, None, None
    )


def test_what_the_logs_cannot_have_is_a_line_of_its_own(capsys, tmp_path):
    with follow_view(Run(tmp_path / "t-1"), None) as view:
        for seen in (
            state(QUEUED, 0, 0, "Priority"), state(QUEUED, 0, 0, "Priority"), state(RUNNING),
            state(RUNNING, step=410), state(REQUEUED, step=420, detail="BeginTime"),
            state(RUNNING, 2, 421), state(RUNNING, 2, 430), state(UNKNOWN, 2, detail="no answer"),
        ):  # fmt: skip
            view.state(seen)
            if seen.step == 421:
                view.line(LogLine("2:0", "resumed after step 420\x1b[2J"))
    assert capsys.readouterr().out.splitlines() == [
        "t-1 queued (Priority)",
        "t-1 requeued after step 420, goes on when Slurm starts it (BeginTime)",
        "t-1 goes on: attempt 2",
        "2:0 | resumed after step 420\\x1b[2J",
        "t-1 unknown (no answer)",
    ]


def test_the_time_at_which_it_goes_on_is_in_the_sentence():
    at = datetime.now(UTC) + timedelta(seconds=16)
    waiting = replace(state(REQUEUED), goes_on=at.isoformat())
    assert local_time(at.isoformat()) in state_sentence(waiting)
    assert "goes on at" in state_sentence(waiting)
    assert local_time("2020-01-02T12:00:00+00:00").startswith("2020-01-0")
    assert local_time("soon") == "soon"


@pytest.mark.parametrize(
    ("line", "now", "left"),
    [
        ({"step": 400, "step_seconds": 0.5, "time": 1000.0}, 1000.0, 300.0),
        ({"step": 400, "step_seconds": 0.5, "time": 1000.0}, 1100.0, 200.0),  # it counts down
        ({"step": 400, "step_seconds": 0.5, "time": 1000.0}, 9000.0, 0.0),
        ({"step": 400, "step_seconds": 0.5}, 1000.0, 300.0),
        ({"step": 400, "step_seconds": "slow"}, 1000.0, None),
        ({"step": 400, "step_seconds": -1}, 1000.0, None),
        ({"step": 400}, 1000.0, None),
    ],
)
def test_the_time_left_is_of_the_newest_seconds_per_step(tmp_path, line, now, left):
    run = Run(tmp_path)
    run.metrics.write_text(json.dumps(line) + "\n")
    assert time_left(run, state(RUNNING), now) == left
    assert time_left(run, state(REQUEUED), now) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (754, "12:34"), (11100, "3:05:00"), (86400, "1 day 0:00:00"),
     (200000, "2 days 7:33:20"), (1e300, "?"), (float("inf"), "?")],
)  # fmt: skip
def test_a_span_as_a_clock_has_it(seconds, text):
    assert clock(seconds) == text


def test_on_a_terminal_the_lines_are_above_a_bar(tmp_path):
    run = Run(tmp_path / "t-1")
    run.folder.mkdir()
    run.metrics.write_text('{"step": 400, "step_seconds": 0.5}\n')
    out = StringIO()
    console = Console(file=out, force_terminal=True, width=80, color_system=None)
    with follow_view(run, console) as view:
        view.state(state(RUNNING))
        view.line(LogLine("1:0", "[red]step 400/1000[/red]  " + "x" * 100))
        view.bar.refresh()
    text = out.getvalue()
    assert "1:0 | [red]step 400/1000[/red]" in text
    assert "x" * 100 in text  # not broken at the width
    assert "running" in text
    assert "400/1,000, 5:00 left" in text
