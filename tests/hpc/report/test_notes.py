"""The line that repeats a run: one that today's configs give, or none."""

from __future__ import annotations

import shlex

from conf import compose
from hpc.jobs.spec.resolve import resolve
from hpc.report.notes import repeat_commands
from hpc.report.reported_run import reported_runs
from tests.hpc.report.written_runs import write_run

NAME = "flights-20260101-00000{}-aaaaaa"


def test_a_config_that_no_line_gives_has_no_command_and_hides_no_other(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCKGATE_SITE", str(tmp_path))
    known = resolve(compose("train", ["task=flights", "steps=77"]), [])
    runs = [
        write_run(tmp_path, NAME.format(1), config={"a=b c": {"}": 1}}),
        write_run(tmp_path, NAME.format(2), config=known),
    ]
    lines = repeat_commands(reported_runs(runs))
    assert list(lines) == [NAME.format(2)]
    assert shlex.split(lines[NAME.format(2)])[:4] == [
        "lockgate",
        "train",
        "task=flights",
        "steps=77",
    ]
