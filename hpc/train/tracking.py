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
BATCH = 900  # MLflow takes 1000 metrics at once
PARAM_BATCH, PARAM_LENGTH = 90, 500


@dataclass
class Tracking:
    """One run in MLflow, found by its tag, so that a requeued job continues the same one."""

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
        """Find or create the MLflow run; without MLflow training goes on."""
        self._attempt(self._find_or_create)

    def log(self, line: Mapping[str, Any]) -> None:
        """Send one line of metrics.jsonl; once something went wrong, all waits for the end."""
        if not self._behind:
            self._attempt(lambda: self._send([line]))

    def end(self, status: str) -> None:
        """Set the final status (FINISHED, FAILED, KILLED), after sending what has not arrived."""
        late, self._behind = self._behind, False
        if late:
            self._attempt(lambda: self._send(metrics_log.read_metrics(self.metrics)))
        if not self._behind:
            self._attempt(lambda: self._client().set_terminated(self._known(), status))
        if late and not self._behind:
            log.info("MLflow at %s is back and has all metrics of %s", self.uri, self.run)

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
        if self.passwords is not None:
            set_mlflow_account(self.passwords)
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri)

    def _known(self) -> str:
        if self._id is None:
            self._find_or_create()
        assert self._id is not None
        return self._id

    def _find_or_create(self) -> None:
        client = self._client()
        known = client.get_experiment_by_name(self.experiment)
        number = known.experiment_id if known else client.create_experiment(self.experiment)
        found = client.search_runs([number], f"tags.`{RUN_TAG}` = '{self.run}'", max_results=1)
        if found:
            self._id = found[0].info.run_id
            client.update_run(self._id, status="RUNNING")
            return
        tags = {**self.tags, RUN_TAG: self.run}
        self._id = client.create_run(number, tags=tags, run_name=self.run).info.run_id
        self._send_parameters(client)

    def _send_parameters(self, client: Any) -> None:
        from mlflow.entities import Param

        params = [Param(key, str(value)[:PARAM_LENGTH]) for key, value in self.parameters.items()]
        for start in range(0, len(params), PARAM_BATCH):
            client.log_batch(self._id, params=params[start : start + PARAM_BATCH])

    def _send(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Idempotent: a metric with the same step, time and value is one metric for MLflow."""
        from mlflow.entities import Metric

        metrics = [
            Metric(key, float(value), round(line["time"] * 1000), line["step"])
            for line in lines
            for key, value in line.items()
            if key not in ("step", "time") and isinstance(value, int | float)
        ]
        client, run_id = self._client(), self._known()
        for start in range(0, len(metrics), BATCH):
            client.log_batch(run_id, metrics=metrics[start : start + BATCH])
