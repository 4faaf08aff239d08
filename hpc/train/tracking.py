"""MLflow: a mirror of metrics.jsonl. It may be down; training goes on, and it catches up later."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conf.credentials import set_mlflow_account
from hpc.train import metrics_log

log = logging.getLogger(__name__)

RUN_TAG = "lockgate.run"  # by which the MLflow run of a run is found
REWOUND_TAG = "lockgate.rewound"  # how often its history was written anew
BATCH = 900  # MLflow takes 1000 metrics at once
PARAM_BATCH, PARAM_LENGTH = 90, 500

Point = tuple[str, int, int]
"""A metric's name, step, and time in milliseconds since 1970: the identity of a point."""


@dataclass
class Tracking:
    """One run in MLflow, found by its tag, so that a requeued job continues the same one.

    MLflow cannot take a point back. Where it has points that metrics.jsonl has not, of steps that a
    killed attempt had done and the next one did again, the run is made anew there with the history
    as it is, and the old one is deleted, which MLflow can undo (`mlflow gc` removes it for good).
    """

    uri: str
    experiment: str
    run: str
    metrics: Path  # metrics.jsonl
    tags: Mapping[str, str]
    parameters: Mapping[str, Any]
    passwords: Path | None = None
    """Folder with this user's own account at MLflow."""
    _id: str | None = field(default=None, init=False)
    _behind: bool = field(default=False, init=False)

    def start(self) -> None:
        """Find or create the MLflow run, with metrics.jsonl as it is; without MLflow training goes
        on.
        """
        self._attempt(lambda: self._mirror("RUNNING"))

    def log(self, line: Mapping[str, Any]) -> None:
        """Send one line of metrics.jsonl; once something went wrong, all waits for the end."""
        if not self._behind:
            self._attempt(lambda: self._send([line]))

    def end(self, status: str) -> None:
        """Set the status, after sending what has not arrived.

        It is final (FINISHED, FAILED, KILLED), or SCHEDULED for a run that goes on later.
        """
        late, self._behind = self._behind, False
        if late:
            self._attempt(lambda: self._mirror(status))
        else:
            self._attempt(lambda: self._set_status(status))
        if late and not self._behind:
            log.info("MLflow at %s is back and has all metrics of %s", self.uri, self.run)

    def mirror(self, status: str) -> None:
        """Bring MLflow up to metrics.jsonl and to `status`. Raises what MLflow's client does."""
        self._mirror(status)

    def _attempt(self, action: Any) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001  whatever MLflow does, training goes on
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            log.warning(
                "MLflow at %s does not take metrics (%s). Training goes on; %s has everything, "
                "and MLflow is tried again at the end.",
                self.uri, reason, self.metrics.name,
            )  # fmt: skip
            self._behind = True

    def _client(self) -> Any:
        # Without these a dead server holds training up for minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        if self.passwords is not None:
            set_mlflow_account(self.passwords)
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri)

    def _mirror(self, status: str) -> None:
        client = self._client()
        run, found = self._newest(client)
        lines = metrics_log.read_metrics(self.metrics)
        if run is None:
            run = self._create(client, rewound=0, start_ms=_start_ms(lines))
            missing = lines
        else:
            there = self._points(client, run)
            if there - {point for line in lines for point in _points(line)}:
                count = int(run.data.tags.get(REWOUND_TAG, "0")) + 1
                run = self._create(client, count, run.info.start_time)
                missing = lines
            else:
                missing = [line for line in lines if not there.issuperset(_points(line))]
        self._id = run.info.run_id
        self._send(missing)
        for old in found:
            if old.info.run_id != self._id:
                client.delete_run(old.info.run_id)
        self._set_status(status)

    def _newest(self, client: Any) -> tuple[Any, list[Any]]:
        """The MLflow run to go on with, None for none, and all that bear this run's name."""
        known = client.get_experiment_by_name(self.experiment)
        if known is None:
            return None, []
        tagged = f"tags.`{RUN_TAG}` = '{self.run}'"
        found = list(client.search_runs([known.experiment_id], tagged, max_results=100))
        count = {one.info.run_id: int(one.data.tags.get(REWOUND_TAG, "0")) for one in found}
        return max(found, key=lambda one: count[one.info.run_id], default=None), found

    def _create(self, client: Any, rewound: int, start_ms: int | None) -> Any:
        known = client.get_experiment_by_name(self.experiment)
        number = known.experiment_id if known else client.create_experiment(self.experiment)
        tags = {**self.tags, RUN_TAG: self.run, REWOUND_TAG: str(rewound)}
        run = client.create_run(number, start_time=start_ms, tags=tags, run_name=self.run)
        self._id = run.info.run_id
        self._send_parameters(client)
        return run

    def _points(self, client: Any, run: Any) -> set[Point]:
        return {
            (one.key, one.step, one.timestamp)
            for key in run.data.metrics
            for one in client.get_metric_history(run.info.run_id, key)
        }

    def _set_status(self, status: str) -> None:
        if self._id is None:
            self._mirror(status)
        elif status in ("RUNNING", "SCHEDULED"):
            self._client().update_run(self._id, status=status)
        else:
            self._client().set_terminated(self._id, status)

    def _send_parameters(self, client: Any) -> None:
        from mlflow.entities import Param

        params = [Param(key, str(value)[:PARAM_LENGTH]) for key, value in self.parameters.items()]
        for start in range(0, len(params), PARAM_BATCH):
            client.log_batch(self._id, params=params[start : start + PARAM_BATCH])

    def _send(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Idempotent: a metric with the same step, time and value is one metric for MLflow."""
        from mlflow.entities import Metric

        metrics = [
            Metric(key, float(line[key]), at_ms, step)
            for line in lines
            for key, step, at_ms in _points(line)
        ]
        if self._id is None:
            self._mirror("RUNNING")
        client = self._client()
        for start in range(0, len(metrics), BATCH):
            client.log_batch(self._id, metrics=metrics[start : start + BATCH])


def _points(line: Mapping[str, Any]) -> list[Point]:
    """The points of one line of metrics.jsonl; what is no number is none."""
    step, at = line.get("step"), line.get("time")
    if not isinstance(step, int) or not isinstance(at, int | float):
        return []
    return [
        (key, step, round(at * 1000))
        for key, value in line.items()
        if key not in ("step", "time") and isinstance(value, int | float)
    ]


def _start_ms(lines: Sequence[Mapping[str, Any]]) -> int | None:
    """The time of the first point; None for a run that begins now."""
    times = [at_ms for line in lines for _, _, at_ms in _points(line)]
    return min(times, default=None)
