"""A broken run is shown broken, with the reason, and counted; the runs beside it are shown too."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc.cli.main import main
from hpc.jobs.exporter.poll import QueueSnapshot, poll_slurm
from hpc.jobs.queue import run_states
from hpc.jobs.run import faults
from hpc.jobs.run.faults import check_runs, run_faults
from hpc.jobs.run.files import TargetFile, read_record, write_run_file
from hpc.jobs.run.folder import Run, all_runs
from hpc.jobs.spec import job_spec
from hpc.jobs.spec.job_spec import read_spec
from tests.hpc.jobs.slurm.test_jobs import USER, squeue_json
from tests.hpc.jobs.test_queue import job_file, make_run

GOOD, BROKEN = "t-20260101-000001-aaaaaa", "t-20260101-000002-bbbbbb"
DEEP = 100_000
QUEUE = json.loads(squeue_json((1, GOOD, "RUNNING"), (2, BROKEN, "RUNNING")))
for job in QUEUE["jobs"]:
    job["batch_host"] = "n1"

pytestmark = pytest.mark.timeout(60)


def huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 8 << 30)  # a hole: it takes no room


def loop(path: Path) -> None:
    path.symlink_to(path.name)  # unreadable, also for root


KINDS: dict[str, Callable[[Path], object]] = {
    "nested": lambda path: path.write_text("[" * DEEP + "]" * DEEP),
    "nested object": lambda path: path.write_text('{"a":' * DEEP + "1" + "}" * DEEP),
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
    "huge": huge,
    "unreadable": loop,
    "empty": Path.touch,
    "bytes": lambda path: path.write_bytes(b"\xff\xfe\x00\x01"),
    "bomb": lambda path: path.write_text(
        "a: &a [x, x]\n" + "".join(f"k{n}: &b{n} [*a, *a]\n" for n in range(9))
    ),
    "of another kind": lambda path: path.write_text('{"spec": [1], "digest": null}'),
}
FILES = (
    "spec.yaml", "job.json", "status.json", "failure.json", "cancelled.json",
    "metrics_target.json", "metrics.jsonl",
)  # fmt: skip


def answers(command) -> str:
    if command[0] == "squeue":
        return json.dumps(QUEUE)
    return "n1|127.0.0.1\n" if command[-1].endswith("%o") else "n1|idle|gpu\n"


def site_with(tmp_path: Path, file: str, kind: str) -> Path:
    runs = tmp_path / "runs"
    for number, name in enumerate((GOOD, BROKEN), 1):
        run = make_run(runs, name, job_file(job_id=str(number)), "running")
        write_run_file(run.target, TargetFile(f"127.0.0.1:{40000 + number}"))
    path = runs / BROKEN / file
    path.unlink(missing_ok=True)
    KINDS[kind](path)
    return runs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("file", FILES)
def test_a_broken_run_hides_no_other_and_is_counted(file, kind, tmp_path, monkeypatch, capsys):
    runs = site_with(tmp_path, file, kind)
    monkeypatch.setattr("hpc.jobs.slurm.jobs.query", lambda command, _: answers(command))
    monkeypatch.setattr("hpc.jobs.slurm.jobs.controller_is_up", lambda _: True)
    began = time.monotonic()
    good, broken = run_states(all_runs(runs))
    assert (good.run, good.state, good.detail) == (GOOD, "running", "")
    assert broken.run == BROKEN
    seen = poll_slurm(QueueSnapshot(), answers, runs)
    assert all(health.success for health in seen.health.values())
    assert {"run": GOOD, "task": "flights"} in [group["labels"] for group in seen.targets]
    json.dumps(list(seen.targets))
    assert seen.runs[GOOD].reasons == ()
    monkeypatch.setenv("LOCKGATE_SITE", str(tmp_path))
    assert main(["ls"]) == 0
    shown = capsys.readouterr().out
    assert GOOD in shown and BROKEN in shown
    assert main(["ls", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2
    if file == "metrics.jsonl":  # progress only: lines that are none of ours are left out
        assert seen.runs[BROKEN].reasons == ()
    else:
        (reason,) = seen.runs[BROKEN].reasons
        assert file in reason and "\n" not in reason and len(reason) < 500
        if file != "metrics_target.json":
            assert file in broken.detail
    assert time.monotonic() - began < 120


def test_a_closed_folder_is_a_run_where_its_name_is_one(tmp_path, monkeypatch):
    for name in (GOOD, BROKEN, "snapshots", ".staging"):
        (tmp_path / name).mkdir()
    lstat = os.lstat
    real = make_run(tmp_path / "elsewhere", GOOD, job_file())
    (tmp_path / GOOD).rmdir()
    real.folder.rename(tmp_path / GOOD)

    def closed(path, **more):
        if GOOD not in str(path):
            raise PermissionError(13, "Permission denied")
        return lstat(path, **more)

    monkeypatch.setattr("os.lstat", closed)
    assert [run.name for run in all_runs(tmp_path)] == [GOOD, BROKEN]


def test_what_is_no_folder_is_no_run(tmp_path):
    (tmp_path / GOOD).write_text("")
    os.mkfifo(tmp_path / BROKEN)
    loop(tmp_path / "notes")
    assert all_runs(tmp_path) == []


def test_a_run_is_read_again_only_when_it_changed(tmp_path, monkeypatch):
    runs = [make_run(tmp_path, f"t-20260101-00000{n}-aaaaaa", job_file()) for n in range(1, 6)]
    read: list[str] = []
    monkeypatch.setattr(faults, "run_faults", lambda run: read.append(run.name) or ())
    monkeypatch.setattr(faults, "RUNS_AT_ONCE", 3)
    first = check_runs(runs, {})
    assert read == [run.name for run in reversed(runs[2:])]
    second = check_runs(runs, first)
    assert read[3:] == [runs[1].name, runs[0].name]
    assert check_runs(runs, second) == second
    assert len(read) == 5
    runs[2].status.write_text("")
    check_runs(runs, second)
    assert read[5:] == [runs[2].name]


def test_the_log_names_a_broken_run_once(tmp_path, caplog):
    runs = site_with(tmp_path, "status.json", "pipe")
    first = poll_slurm(QueueSnapshot(), answers, runs)
    poll_slurm(first, answers, runs)
    named = [text for text in caplog.messages if "is broken" in text]
    assert named == [f"run {BROKEN} is broken: status.json cannot be read: it is no regular file"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)
KEYS = st.sampled_from(
    ["kind", "job_id", "user", "ranks", "submitted", "state", "attempt", "error", "target", "at"]
)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return make_run(tmp_path_factory.mktemp("runs"), GOOD, job_file())


@given(
    st.sampled_from(FILES),
    st.binary(max_size=50) | st.dictionaries(KEYS, JSON, max_size=5).map(json.dumps),
)
def test_whatever_stands_in_a_file_the_run_has_a_state(run, file, content):
    path = run.folder / file
    before = path.read_bytes() if path.exists() else None
    path.unlink(missing_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    fresh = Run(run.folder)  # a run remembers its spec
    try:
        record = read_record(fresh)
        assert record.job is None or (record.job.job_id.isdecimal() and record.job.user)
        assert all("\n" not in reason for reason in run_faults(fresh))
        assert record.kind is None or isinstance(record.kind, str)
    finally:
        path.unlink()
        if before is not None:
            path.write_bytes(before)


@given(st.text(), st.recursive(st.text() | st.integers(), st.lists, max_leaves=5))
def test_a_spec_comes_back_exactly_or_is_refused(run, task, value):
    text = run.spec_path.read_text()
    fresh = Run(run.folder)
    spec = fresh.spec
    changed = job_spec.JobSpec(
        task, {"value": value}, spec.source, None, spec.dataset, spec.environment
    )
    try:
        run.spec_path.unlink()
        changed.write(run.spec_path)
        found = read_spec(run.spec_path)
        assert (found.task, found.digest) == (task, changed.digest)
        assert found.config["value"] == value or "${" in str(value)
    finally:
        run.spec_path.unlink()
        run.spec_path.write_text(text)


def test_the_user_of_a_run_without_a_job_file_is_its_folders(tmp_path, monkeypatch):
    made = make_run(tmp_path, GOOD, None)
    assert read_record(made).user == USER
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    assert read_record(made).user == str(os.getuid())
