from __future__ import annotations

from dataclasses import dataclass

from hpc.jobs.run.folder import Run
from hpc.jobs.run.logs import LogLine, LogReader, follow_lines, log_streams, read_lines


def run_with(tmp_path, **files: str) -> Run:
    run = Run(tmp_path)
    run.logs.mkdir()
    run.submitit.mkdir()
    for name, text in files.items():
        folder = run.submitit if name.startswith("e") else run.logs
        name = {"e": "7_0_log.err", "launcher": "launcher.log"}.get(
            name, name[1:].replace("_", "-")
        )
        (folder / (name if "." in name else f"{name}.log")).write_text(text)
    return run


def test_streams_are_ordered_by_attempt_and_rank_not_by_letters(tmp_path):
    run = run_with(tmp_path, a10_0="", a2_1="", a2_0="", a1_10="", a1_9="", launcher="", e="")
    assert [name for name, _ in log_streams(run)] == [
        "launcher", "launcher", "1:9", "1:10", "2:0", "2:1", "10:0",
    ]  # fmt: skip
    assert [name for name, _ in log_streams(run, rank=0)] == ["2:0", "10:0"]


def test_markers_beside_the_logs_are_not_logs(tmp_path):
    run = run_with(tmp_path, a1_0="hello\n")
    (run.logs / "1.exit").write_text("75\n")
    assert list(read_lines(run)) == [LogLine("1:0", "hello")]


def test_a_line_is_shown_once_and_whole(tmp_path):
    run = run_with(tmp_path, a1_0="one\ntw")
    reader = LogReader(run, None)
    assert [line.text for line in reader.read_new(partial=False)] == ["one"]
    with (run.logs / "1-0.log").open("a") as log:
        log.write("o\nthree")
    assert [line.text for line in reader.read_new(partial=False)] == ["two"]
    assert [line.text for line in reader.read_new()] == ["three"]
    assert list(reader.read_new()) == []


@dataclass
class State:
    over: bool


def test_following_goes_on_over_a_requeue_and_ends_with_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr("hpc.jobs.run.logs.STATE_POLL_S", 0.0)
    monkeypatch.setattr("hpc.jobs.run.logs.POLL_S", 0.0)
    run = run_with(tmp_path, a1_0="saved and stopped\n")
    asked = []

    def state():
        asked.append(1)
        if len(asked) == 2:
            (run.logs / "2-0.log").write_text("resumed\n")
        if len(asked) == 3:
            (run.logs / "2-0.log").write_text("resumed\nlast words without an end")
        return State(over=len(asked) == 3)

    assert [(line.stream, line.text) for line in follow_lines(run, None, state)] == [
        ("1:0", "saved and stopped"),
        ("2:0", "resumed"),
        ("2:0", "last words without an end"),
    ]
