"""MLflow, the real one on a port of this machine: its curve and its states are those of the run."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc.cli.main import main
from hpc.jobs.run.files import JobFile, StatusFile, write_cancelled, write_run_file
from hpc.jobs.run.folder import Run
from hpc.train import metrics_log
from hpc.train.tracking import RUN_TAG, Tracking
from tests.hpc.jobs.spec.test_job_spec import spec_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an MLflow without accounts, with a database of its own."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [
            *(str(Path(sys.executable).with_name("mlflow")), "server", "--workers", "1"),
            *("--host", "127.0.0.1", "--port", str(port)),
            *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
            *("--artifacts-destination", str(folder / "artifacts")),
        ],
        env={
            **os.environ,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        _until_healthy(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _until_healthy(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None and time.monotonic() < deadline, "MLflow never answered"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)


def tracking(uri: str, metrics: Path, run: str) -> Tracking:
    return Tracking(uri, "standin", run, metrics, {"lockgate.spec": "d"}, {"optim.lr": 0.1})


def log(to: Tracking, step: int, loss: float, at: float) -> None:
    line = {"time": at, "step": step, "loss": loss, "rows_per_second": 7.5}
    metrics_log.append_metrics(to.metrics, line)
    to.log(line)


def in_mlflow(uri: str, run: str) -> list:
    """The active MLflow runs of a run."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    known = client.get_experiment_by_name("standin")
    return list(client.search_runs([known.experiment_id], f"tags.`{RUN_TAG}` = '{run}'"))


def history(uri: str, run: str, key: str = "loss") -> list[tuple[int, float]]:
    from mlflow import MlflowClient

    (found,) = in_mlflow(uri, run)
    points = MlflowClient(tracking_uri=uri).get_metric_history(found.info.run_id, key)
    return sorted((one.step, one.value) for one in points)


def test_a_curve_in_mlflow_is_rewound_with_the_run(server: str, tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    first = tracking(server, metrics, "rewound")
    first.start()
    (before,) = in_mlflow(server, "rewound")
    for step in (1, 2, 3, 4, 5):  # killed here; its checkpoint is of step 3
        log(first, step, 1 / step, 1000.0 + step)

    metrics_log.rewind_metrics(metrics, 3)
    second = tracking(server, metrics, "rewound")
    second.start()
    assert history(server, "rewound") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    for step in (4, 5, 6):
        log(second, step, 1 / step, 2000.0 + step)
    second.end("FINISHED")
    (after,) = in_mlflow(server, "rewound")
    assert history(server, "rewound") == [(step, 1 / step) for step in range(1, 7)]
    assert len(history(server, "rewound", "rows_per_second")) == 6
    assert after.info.run_id != before.info.run_id
    assert (after.info.start_time, after.info.status) == (before.info.start_time, "FINISHED")
    assert after.data.params == {"optim.lr": "0.1"}


def test_a_run_that_lost_nothing_stays_the_same_run_there(server: str, tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    first = tracking(server, metrics, "kept")
    first.start()
    log(first, 1, 0.5, 1000.0)
    first.end("SCHEDULED")
    (before,) = in_mlflow(server, "kept")
    assert before.info.status == "SCHEDULED"  # neither failed nor killed: it goes on later
    second = tracking(server, metrics, "kept")
    second.start()
    (after,) = in_mlflow(server, "kept")
    assert (after.info.run_id, after.info.status) == (before.info.run_id, "RUNNING")
    log(second, 2, 0.25, 1001.0)
    second.end("FINISHED")
    assert history(server, "kept") == [(1, 0.5), (2, 0.25)]


def test_two_runs_of_one_name_become_the_newer_one(server: str, tmp_path: Path) -> None:
    """A job that was killed between the new run there and the end of the old one."""
    from mlflow import MlflowClient

    metrics = tmp_path / "metrics.jsonl"
    first = tracking(server, metrics, "twice")
    first.start()
    log(first, 1, 0.5, 1000.0)
    client = MlflowClient(tracking_uri=server)
    (old,) = in_mlflow(server, "twice")
    tags = {RUN_TAG: "twice", "lockgate.rewound": "1"}
    half = client.create_run(old.info.experiment_id, tags=tags, start_time=old.info.start_time)
    tracking(server, metrics, "twice").start()
    assert [one.info.run_id for one in in_mlflow(server, "twice")] == [half.info.run_id]
    assert history(server, "twice") == [(1, 0.5)]


@pytest.fixture
def ended(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """ended(name, state): a run of the site that ended so while MLflow was away."""
    monkeypatch.setenv("LOCKGATE_SITE", str(tmp_path))

    def make(name: str, state: str) -> Run:
        run = Run(tmp_path / "runs" / name)
        run.logs.mkdir(parents=True)
        site = {"mlflow_uri": server, "paths": {}}
        config = {"steps": 2, "cluster": {"kind": "local"}, "site": site}
        spec_of(config, task="standin").write(run.spec_path)
        write_run_file(run.job, JobFile("local", "1", "", "train", 1, process_started=0))
        if state == "finished":
            write_run_file(run.status, StatusFile("finished", 1))
        elif state == "cancelled":
            write_cancelled(run)
        for step, loss in ((1, 0.5), (2, 0.25)):
            metrics_log.append_metrics(
                run.metrics, {"time": 1e3 + step, "step": step, "loss": loss}
            )
        return run

    return make


@pytest.mark.parametrize(
    ("state", "status"),
    [("finished", "FINISHED"), ("cancelled", "KILLED"), ("given up", "FAILED")],
)
def test_a_run_that_ended_while_mlflow_was_away_is_fed_later(
    server: str, ended, state: str, status: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ended(f"away-{status.lower()}", state)
    for _ in range(2):  # twice is the same as once
        assert main(["mlflow", run.name, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == [{"run": run.name, "status": status}]
        (found,) = in_mlflow(server, run.name)
        assert found.info.status == status
        assert history(server, run.name) == [(1, 0.5), (2, 0.25)]


def test_a_silent_mlflow_is_a_sentence_with_what_to_type(
    ended, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended("silent", "finished").spec_path.unlink()
    run = Run(tmp_path / "runs" / "silent")
    site = {"mlflow_uri": "http://127.0.0.1:9", "paths": {}}
    config = {"steps": 2, "cluster": {"kind": "local"}, "site": site}
    spec_of(config, task="standin").write(run.spec_path)
    assert main(["mlflow", "silent"]) == 1
    assert "try again later: lockgate mlflow silent" in capsys.readouterr().err
