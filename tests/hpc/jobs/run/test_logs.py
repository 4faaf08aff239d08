from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from hpc.cli.main import main
from hpc.jobs.run import logs
from hpc.jobs.run.folder import Run
from hpc.jobs.run.logs import LogLine, LogReader, follow_lines, log_streams, read_lines
from hpc.jobs.run.metrics import last_metrics


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


LINES = st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n")))


@given(LINES)
def test_every_line_comes_out_as_it_was_written(lines):
    with tempfile.TemporaryDirectory() as folder:
        run = run_with(Path(folder))
        data = "".join(f"{line}\n" for line in lines).encode()
        (run.logs / "1-0.log").write_bytes(data)
        assert [line.text for line in read_lines(run)] == lines


@given(st.binary(), st.integers(0, 50))
def test_bytes_that_are_no_text_lose_no_line(data, cut):
    with tempfile.TemporaryDirectory() as folder:
        run = run_with(Path(folder))
        reader = LogReader(run, None)
        log = run.logs / "1-0.log"
        log.write_bytes(data[:cut])
        seen = list(reader.read_new(partial=False))
        log.write_bytes(data)
        seen += list(reader.read_new())
        whole = data.removesuffix(b"\n").split(b"\n") if data else []
        assert [line.text for line in seen] == [line.decode(errors="replace") for line in whole]


@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.floats(allow_nan=False))))
def test_the_newest_metrics_come_out_whatever_they_are_called(rows):
    newest = {name: value for row in rows for name, value in row.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "metrics.jsonl")
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        path.write_bytes(text.encode(errors="surrogatepass") + b"{torn")
        found = last_metrics(path)
    if not any("\ud800" <= letter <= "\udfff" for letter in text):
        assert found == newest


def test_a_line_without_an_end_comes_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "LONGEST_BYTES", 4)
    run = run_with(tmp_path, a1_0="123456789\nx\n")
    assert [line.text for line in read_lines(run)] == ["1234", "5678", "9", "x"]


def test_a_pipe_or_a_folder_among_the_logs_stops_nothing(tmp_path):
    run = run_with(tmp_path, a1_0="one\n", a1_3="two\n")
    os.mkfifo(run.logs / "1-1.log")
    (run.logs / "1-2.log").mkdir()
    assert [line.text for line in read_lines(run)] == ["one", "two"]


def test_a_log_shows_what_would_command_the_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LOCKGATE_SITE", str(tmp_path))
    run = Run(tmp_path / "runs" / "t-20260101-000001-aaaaaa")
    run.logs.mkdir(parents=True)
    run.spec_path.write_text("")
    (run.logs / "1-0.log").write_text("1%\r99%\r\n\x1b[2Jgone\u2028\u202e\tü\n", newline="")
    assert main(["logs", "last"]) == 0
    assert capsys.readouterr().out == ("1:0 | 1%\n1:0 | 99%\n1:0 | \\x1b[2Jgone\\u2028\\u202e\tü\n")
    assert main(["logs", "last", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.split("\n")[:-1]]
    assert [row["text"] for row in rows] == ["1%\r99%\r", "\x1b[2Jgone\u2028\u202e\tü"]


def read(reader: LogReader) -> list[str]:
    return [line.text for line in reader.read_new(partial=False)]


def test_a_truncated_log_is_read_from_its_beginning(tmp_path):
    run = run_with(tmp_path, a1_0="one\ntwo\n")
    log, reader = run.logs / "1-0.log", LogReader(run, None)
    assert read(reader) == ["one", "two"]
    log.write_text("three\n")  # shorter
    assert read(reader) == ["three"]
    log.write_text("a line that is longer than all before it\n")
    assert read(reader) == ["a line that is longer than all before it"]
    log.write_text("")
    assert read(reader) == []
    with log.open("a") as file:
        file.write("after it\n")
    assert read(reader) == ["after it"]


def test_a_rotated_log_is_read_to_its_end_and_then_the_new_one(tmp_path):
    run = run_with(tmp_path, a1_0="one\n")
    log, reader = run.logs / "1-0.log", LogReader(run, None)
    assert read(reader) == ["one"]
    with log.open("a") as file:
        file.write("two\nlast without an end")
    log.rename(run.logs / "1-0.log.1")
    log.write_text("three\n")
    assert read(reader) == ["two", "last without an end", "three"]
    log.rename(tmp_path / "elsewhere")  # rotated out of the folder: only the new one is left
    log.write_text("four\n")
    assert read(reader) == ["four"]
    log.unlink()
    assert read(reader) == []
    log.write_text("five\n")
    assert read(reader) == ["five"]


def test_a_follower_that_began_before_there_was_a_log_misses_nothing(tmp_path):
    run = Run(tmp_path / "run")
    reader = LogReader(run, None)
    assert read(reader) == []
    run.logs.mkdir(parents=True)
    assert read(reader) == []
    (run.logs / "1-0.log").write_text("one\n")
    (run.logs / "1-1.log").write_text("other\n")
    assert read(reader) == ["one", "other"]


CHUNKS = st.lists(
    st.tuples(st.sampled_from(["append", "truncate", "rotate"]), st.text("ab\n", max_size=6)),
    max_size=8,
)


@given(CHUNKS)
def test_whatever_becomes_of_a_log_what_was_written_last_is_read(changes):
    """Lines that never were in the file while somebody read it may be lost; no others."""
    with tempfile.TemporaryDirectory() as folder:
        run = run_with(Path(folder), a1_0="")
        log, reader = run.logs / "1-0.log", LogReader(run, None)
        for number, (change, text) in enumerate(changes):
            if change == "rotate":
                log.rename(run.logs / f"1-0.log.{number}")
            with log.open("a" if change == "append" else "w") as file:
                file.write(f"{text}\n{number}\n")  # ends in a line of its own
            assert read(reader)[-1] == str(number)
