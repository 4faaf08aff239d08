"""Rank 0's report of a run: log lines, metrics.jsonl, Prometheus and MLflow."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kernels
from hpc.jobs.run.folder import Run
from hpc.jobs.run.lost_neighbour import is_lost_neighbour
from hpc.jobs.spec.job_spec import JobSpec
from hpc.jobs.spec.settings import flat_settings
from hpc.train import metrics_log
from hpc.train.metrics import TrainMetrics, served
from hpc.train.operators import served_sentence
from hpc.train.saving import Saved
from hpc.train.step_columns import StepColumns
from hpc.train.tracking import Tracking

log = logging.getLogger(__name__)

NOT_SETTINGS = ("site", "cluster")  # where it ran, not what it learned from
MLFLOW_STATUS = {
    "finished": "FINISHED",
    "stopped": "SCHEDULED",  # it saved, and goes on later
    "ended": "KILLED",
    "failed": "FAILED",
}
"""MLflow's word for the end of an attempt."""


@dataclass
class RunReport:
    """The report of one attempt: every `interval`-th step, all evaluations and checkpoints."""

    path: Path
    unit: str  # rows or tokens
    steps: int
    interval: int
    shown: TrainMetrics
    tracking: Tracking
    outcome: str = field(default="failed", init=False)
    columns: StepColumns | None = field(default=None, init=False)
    _served: str = field(default="", init=False)
    _since: float = field(default_factory=time.perf_counter, init=False)
    _seen: float = field(default=0.0, init=False)
    _steps_since: int = field(default=0, init=False)

    def log_start(self, summary: str, done: int) -> None:
        """Log the start of an attempt with `done` steps behind it."""
        log.info("%s\n%s", summary, f"resumed after step {done}" if done else "a new run")
        self._restart_clock()

    def log_step(self, step: int, loss: float, rate: float, seen: float, seconds: float) -> None:
        """Count step `step` (from 1), of `seconds` and of `seen` units over all ranks; log some."""
        self.shown.seconds.observe(seconds)
        self.shown.step.set(step)
        self.shown.units.inc(seen)
        self._seen += seen
        self._steps_since += 1
        if step % self.interval and step != self.steps:
            return
        self.shown.loss.set(loss)
        self.shown.rate.set(rate)
        elapsed = max(time.perf_counter() - self._since, 1e-9)
        speed, each = self._seen / elapsed, elapsed / self._steps_since
        left = (self.steps - step) * each
        columns = self.columns.take(speed) if self.columns else {}
        self.shown.set_columns(columns)
        self._line(
            {
                "step": step,
                "loss": loss,
                "lr": rate,
                f"{self.unit}_per_second": round(speed, 1),
                "step_seconds": round(each, 5),
                **columns,
            },
            f"step {step}/{self.steps}  loss {loss:.4f}  lr {rate:.3g}  "
            f"{speed:,.0f} {self.unit}/s  {_minutes(left)} left",
        )
        self._log_operators()
        self._restart_clock()

    def _log_operators(self) -> None:
        """Show the calls of this rank's operators; log what serves them when that changes."""
        self.shown.set_operators(kernels.operator_calls())
        served = served_sentence()
        if served != self._served:
            self._served = served
            log.info("operators: %s", served)

    def _restart_clock(self) -> None:
        """Reset the throughput counters, which leaves out the time of evaluating and saving."""
        self._since, self._seen, self._steps_since = time.perf_counter(), 0.0, 0

    def log_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of the validation split after step `step`."""
        for name, value in metrics.items():
            self.shown.validation.labels(name).set(value)
        words = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        line = {f"validation_{name}": value for name, value in metrics.items()}
        self._line({"step": step, **line}, f"validation after step {step}  {words}")
        self._restart_clock()

    def log_saves(self, saves: Sequence[Saved]) -> None:
        """Log the checkpoints that are on the disk by now, and those that could not be written."""
        for one in saves:
            if one.fault is None:
                self.shown.mark_checkpoint()
                log.info("checkpoint %s written after step %d", one.folder.name, one.step)
            else:
                self.shown.failed_checkpoints.inc()
                log.warning(
                    "checkpoint %s was not written: %s. The older ones stay, and the run goes on.",
                    *(one.folder.name, one.fault),
                )
        if saves:
            self._restart_clock()

    def log_stall(self, step: int, seconds: float) -> None:
        """Log the time for which the checkpoint of step `step` held up the training."""
        columns = {"checkpoint_stall_seconds": round(seconds, 4)}
        self.shown.set_columns(columns)
        self._line({"step": step, **columns}, f"the checkpoint held up the steps {seconds:.2f} s")
        self._restart_clock()

    def has_evaluation(self, step: int) -> bool:
        """True where metrics.jsonl has the metrics of an evaluation after step `step`."""
        return any(
            line.get("step") == step and any(name.startswith("validation_") for name in line)
            for line in metrics_log.read_metrics(self.path)
        )

    def log_candidate(self, candidate: Path) -> None:
        """Log that the candidate was written."""
        log.info("candidate written to %s", candidate)

    def _line(self, content: dict[str, Any], words: str) -> None:
        log.info("%s", words)
        line = {"time": round(time.time(), 3), **content}
        metrics_log.append_metrics(self.path, line)
        self.tracking.log(line)


@contextmanager
def reporting(spec: JobSpec, unit: str, run: Run, done: int) -> Iterator[RunReport]:
    """Open everything a run reports to, as of step `done`; rank 0 only.

    `unit` is what the task's batches are counted in.
    """
    metrics_log.rewind_metrics(run.metrics, done)
    tracking = tracking_of(spec, run)
    tracking.start()
    with served(run.target, run.name, spec.task, unit) as shown:
        shown.step.set(done)
        shown.steps.set(spec.config.steps)
        steps, interval = spec.config.steps, spec.config.log_interval
        report = RunReport(run.metrics, unit, steps, interval, shown, tracking)
        try:
            yield report
        except BaseException as error:
            # The end of the attempt decides; it mostly goes on from its checkpoint.
            if is_lost_neighbour(f"{type(error).__name__}: {error}"):
                report.outcome = "stopped"
            raise
        finally:
            tracking.end(MLFLOW_STATUS[report.outcome])


def tracking_of(spec: JobSpec, run: Run) -> Tracking:
    """The mirror of `run`, whose spec is `spec`, in its site's MLflow; nothing is sent yet."""
    # As the spec has it: a secret stays the name of its variable, in MLflow too.
    config = spec.content()["config"]
    settings = {key: value for key, value in config.items() if key not in NOT_SETTINGS}
    tags = {
        "lockgate.spec": spec.digest,
        "lockgate.source": spec.source.digest,
        "lockgate.dataset": f"{spec.dataset.name}@{spec.dataset.digest}",
    }
    if spec.parent is not None:
        tags["lockgate.parent"] = spec.parent.words
    return Tracking(
        uri=spec.config.site.mlflow_uri,
        experiment=spec.task,
        run=run.name,
        metrics=run.metrics,
        tags=tags,
        parameters=flat_settings(settings),
        passwords=_passwords(spec),
    )


def _passwords(spec: JobSpec) -> Path | None:
    """The folder of accounts; None for a run that was submitted before there was one."""
    folder = spec.config.site.paths.get("passwords")
    return None if folder is None else Path(folder)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
