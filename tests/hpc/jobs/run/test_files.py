"""The JSON files of a run folder, as their own writers and as strangers leave them."""

from __future__ import annotations

import json

import pytest

from hpc.jobs.run.files import (
    CancelFile,
    FailureFile,
    JobFile,
    RankFailure,
    Reading,
    StatusFile,
    TargetFile,
    read_run_file,
    with_failure,
    write_run_file,
)

ERROR = RankFailure("Diverged", "loss is nan", 1)
FILES = [
    JobFile("slurm", "7", "2026-01-01T00:00:00+00:00", "train", 2, slurm_conf="/etc/slurm.conf"),
    StatusFile("finished", 2, run="r", started="2026-01-01", metrics={"auc": 0.5, "step": 5}),
    FailureFile(1, "2026-01-01", ERROR, metrics={"loss": 1e9}),
    CancelFile("train", "2026-01-01"),
    TargetFile("127.0.0.1:4242", "r", "lm"),
]


@pytest.mark.parametrize("content", FILES, ids=lambda content: type(content).__name__)
def test_a_file_reads_as_it_was_written(tmp_path, content):
    path = tmp_path / "file.json"
    write_run_file(path, content)
    assert read_run_file(type(content), path) == Reading(content)
    newer = json.loads(path.read_text()) | {"of_a_later_version": 1}
    path.write_text(json.dumps(newer))
    assert read_run_file(type(content), path) == Reading(content)


def test_a_missing_file_is_no_problem(tmp_path):
    assert read_run_file(JobFile, tmp_path / "job.json") == Reading(None, None)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"state": "runn', "status.json is torn, or no JSON"),
        ("\udcff", "status.json is torn, or no JSON"),
        ("3", "status.json is no JSON object"),
        ('{"attempt": 1}', "status.json.state is missing"),
        ('{"state": "asleep", "attempt": 1}', "status.json.state is 'asleep', not one of running"),
        ('{"state": "running", "attempt": "1"}', "status.json.attempt is '1', not of type int"),
    ],
)
def test_a_file_of_another_shape_is_nothing_with_a_reason(tmp_path, text, problem):
    path = tmp_path / "status.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    reading = read_run_file(StatusFile, path)
    assert reading.value is None
    assert problem in str(reading.problem)


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path):
    path = tmp_path / "status.json"
    path.mkdir()
    assert read_run_file(StatusFile, path).problem == "status.json cannot be read: Is a directory"


@pytest.mark.parametrize("place", ["error", "metrics"])
def test_a_run_file_never_calls_what_it_names(tmp_path, place):
    left = tmp_path / "left"
    call = {"_target_": "os.mkdir", "path": str(left)}
    path = tmp_path / "status.json"
    for value in (call, {"deeper": [call]}, {"_target_": 7}):
        path.write_text(json.dumps({"state": "running", "attempt": 1, place: value}))
        reading = read_run_file(StatusFile, path)
        assert reading.value is None
        assert "plain values" in str(reading.problem)
        assert not left.exists()


def test_a_failure_wins_over_a_status_of_its_attempt_or_an_earlier_one():
    status = StatusFile("finished", 2, started="then")
    failed = with_failure(status, FailureFile(2, "now", ERROR))
    assert failed == StatusFile("failed", 2, started="then", ended="now", error=ERROR)
    assert with_failure(status, FailureFile(1, "now", ERROR)) == status
    assert with_failure(None, FailureFile(1, "now", ERROR)).state == "failed"
