"""The Prometheus series of a training run, served by rank 0; see `metrics_target.json`."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from hpc.jobs.run.files import TargetFile, write_run_file
from hpc.jobs.run.operators import REFUSED, TORCH, TRITON
from kernels import OperatorCalls

log = logging.getLogger(__name__)

STEP_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)

MEASURED = {
    "gradient_norm": "Global gradient norm of the last logged step, before clipping.",
    "peak_rss_bytes": "Largest resident memory of rank 0's process so far.",
    "peak_rss_share": "The same as a share of the memory that the job asked for each rank.",
    "peak_gpu_bytes": "Largest memory of tensors on rank 0's GPU so far.",
    "mfu": "Model FLOPs utilization since the last logged step, 0 to 1.",
    "checkpoint_stall_seconds": "Seconds for which the last checkpoint held up the steps.",
}
"""Columns of metrics.jsonl that are series of their own; NaN until they are measured."""


class TrainMetrics:
    """The series of one run. All of them are shown from the start, before the first step."""

    def __init__(self, unit: str) -> None:
        self.registry = CollectorRegistry()
        self.loss = self._gauge("loss", "Training loss of the last logged step, mean over ranks.")
        self.rate = self._gauge("learning_rate", "Learning rate of the first parameter group.")
        self.step = self._gauge("step", "Optimizer steps done.")
        self.steps = self._gauge("steps", "Optimizer steps of the whole run.")
        self.validation = Gauge(
            "lockgate_train_validation",
            "Last evaluation on the validation split, by metric.",
            ["metric"],
            registry=self.registry,
        )
        self.units = Counter(
            "lockgate_train_units",
            "Rows or tokens that all ranks have learned from, as the task counts its batches.",
            ["unit"],
            registry=self.registry,
        ).labels(unit)
        self.seconds = Histogram(
            "lockgate_train_step_seconds",
            "Wall time of one optimizer step.",
            buckets=STEP_SECONDS,
            registry=self.registry,
        )
        self.parts = Gauge(
            "lockgate_train_step_part_seconds",
            "Mean seconds of each part of the steps since the last logged one, on rank 0.",
            ["part"],
            registry=self.registry,
        )
        self.measured = {name: self._gauge(name, text) for name, text in MEASURED.items()}
        for gauge in self.measured.values():
            gauge.set(math.nan)  # not measured yet, and some never are
        self.failed_checkpoints = Counter(
            "lockgate_train_failed_checkpoints",
            "Checkpoints that could not be written, as on a full disk; the older ones stay.",
            registry=self.registry,
        )
        self.operators = Gauge(
            "lockgate_train_operator_calls",
            "Calls of a kernels operator on rank 0, by what served it.",
            ["operator", "backend"],
            registry=self.registry,
        )
        self._saved = time.time()
        self._gauge(
            "checkpoint_age_seconds", "Seconds since the last checkpoint, or since the start."
        ).set_function(lambda: time.time() - self._saved)

    def set_columns(self, columns: Mapping[str, float]) -> None:
        """Set the series of `columns`, which are those of a line of metrics.jsonl."""
        for name, value in columns.items():
            if name in self.measured:
                self.measured[name].set(value)
            else:
                self.parts.labels(name.removesuffix("_seconds")).set(value)

    def set_operators(self, calls: Mapping[str, OperatorCalls]) -> None:
        """Set the calls of each operator; those inside of a compiled graph are not among them."""
        for name, one in calls.items():
            self.operators.labels(name, TRITON).set(one.triton)
            self.operators.labels(name, TORCH).set(one.reference)
            self.operators.labels(name, REFUSED).set(one.refused)

    def mark_checkpoint(self) -> None:
        """Restart the age of the newest checkpoint."""
        self._saved = time.time()

    def _gauge(self, name: str, meaning: str) -> Gauge:
        return Gauge(f"lockgate_train_{name}", meaning, registry=self.registry)


@contextmanager
def served(target: Path, run: str, task: str, unit: str) -> Iterator[TrainMetrics]:
    """Serve metrics on a free port of this node, and write its address to `target` meanwhile.

    The address is the one under which the other ranks find rank 0. A node where it cannot be
    opened trains without the endpoint, and logs it.
    """
    metrics = TrainMetrics(unit)
    address = os.environ.get("MASTER_ADDR", "127.0.0.1")
    try:
        server, _ = start_http_server(0, addr=_bindable(address), registry=metrics.registry)
    except OSError as error:
        log.warning("no metrics endpoint on %s: %s. Training goes on.", address, error)
        yield metrics
        return
    try:
        port = server.server_port
        write_run_file(target, TargetFile(f"{address}:{port}", run, task))
        yield metrics
    finally:
        target.unlink(missing_ok=True)
        server.shutdown()
        server.server_close()


def _bindable(address: str) -> str:
    return socket.getaddrinfo(address, None, socket.AF_INET)[0][4][0]  # type: ignore[return-value]
