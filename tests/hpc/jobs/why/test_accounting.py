"""sacct's lines: how a job and its steps ended, and how long others waited."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc.jobs.cause.job_end import JobEnd, parse_ends, worst_step
from hpc.jobs.why.accounting import WaitHistory, wait_history

ENDS = """\
12|FAILED|1:0|1:0|n[1-2]|2026-11-27T09:00:00|2026-11-27T09:10:00|run-a|COMPLETED|0:0
12.batch|FAILED|1:0||n1|2026-11-27T09:00:00|2026-11-27T09:10:00|batch
12.extern|COMPLETED|0:0||n[1-2]|2026-11-27T09:00:00|2026-11-27T09:10:00|extern
12.0|FAILED|0:9||n[1-2]|2026-11-27T09:00:01|2026-11-27T09:09:59|python
"""


def test_the_ends_of_a_job_and_its_steps() -> None:
    job, batch, extern, step = parse_ends(ENDS)
    assert job == JobEnd("12", "FAILED", 1, 0, 1, "n[1-2]", "2026-11-27T09:10:00")
    assert (batch.step, extern.state, step.signal) == ("12.batch", "COMPLETED", 9)
    assert worst_step(parse_ends(ENDS)) == step
    assert worst_step([job, batch, extern]) is None


def test_a_cancelled_and_a_running_job() -> None:
    cancelled, running = parse_ends(
        "13|CANCELLED by 1001|0:15|0:0|n1|2026-11-27T09:00:00|2026-11-27T09:10:00|a\n"
        "14|RUNNING|0:0|0:0|n1|2026-11-27T09:00:00|Unknown|b\n"
    )
    assert (cancelled.state, cancelled.by, cancelled.signal) == ("CANCELLED", "1001", 15)
    assert (running.state, running.ended) == ("RUNNING", "")


@pytest.mark.parametrize(
    "odd",
    ["", "12", "x|FAILED|1:0|1:0|n1|a|b|c", "12||1:0|0:0|n1|a|b|c", "12.0.1|FAILED|0:9||n|a|b|c"],
)
def test_an_odd_line_costs_itself_alone(odd: str) -> None:
    assert len(parse_ends(f"{odd}\n{ENDS}{odd}")) == 4


@given(st.text())
def test_no_text_breaks_the_parsers(text: str) -> None:
    parse_ends(text)
    wait_history(text, 1, 0)


def waited(job: int, minutes: int, nodes: int = 2, gpus: int = 2) -> str:
    start = f"2026-11-27T{9 + minutes // 60:02}:{minutes % 60:02}:00"
    tres = f"billing=2,cpu=2,gres/gpu={gpus},mem=4G,node={nodes}" if gpus else "cpu=2"
    return f"{job}|2026-11-27T08:00:00|2026-11-27T09:00:00|{start}|{nodes}|{tres}\n"


def test_how_long_requests_of_this_size_waited() -> None:
    text = waited(1, 4) + waited(2, 31) + waited(3, 2) + waited(4, 50, nodes=1, gpus=0)
    assert wait_history(text, 2, 2) == WaitHistory(3, True, 240, 31 * 60)
    # One of this size is too few, so all of the partition count.
    assert wait_history(text, 1, 0) == WaitHistory(4, False, 1050, 50 * 60)


def test_jobs_that_did_not_start_are_left_out() -> None:
    rest = "2026-11-27T08:00:00|Unknown|Unknown|1|cpu=1\n"
    assert wait_history(f"1|{rest}2|x|y|z|1|\n|\nodd", 1, 0) is None
    submitted_only = "3|2026-11-27T08:00:00|Unknown|2026-11-27T08:01:00|1|cpu=1\n"
    assert wait_history(f"1|{rest}{submitted_only}", 1, 0) == WaitHistory(1, False, 60, 60)
