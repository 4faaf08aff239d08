"""The training loop, top to bottom. It runs on every rank of a job, from the source snapshot."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import kernels
from hpc.jobs.run.folder import Run
from hpc.jobs.spec.config import RunConfig, TrainConfig, train_config
from hpc.jobs.spec.job_spec import JobSpec
from hpc.optim.schedule import Rates
from hpc.tasks.micro_batches import MicroBatches
from hpc.tasks.task import Task
from hpc.train import distributed, engine, randomness
from hpc.train.checkpoint import Checkpoints, retention
from hpc.train.compiled import uncompiled
from hpc.train.distributed import World
from hpc.train.engine import whole_weights
from hpc.train.errors import Diverged
from hpc.train.export import evaluate_and_export
from hpc.train.initial_weights import check_inherited, load_initial_weights
from hpc.train.operators import write_operators
from hpc.train.polling import StopHeard, polled
from hpc.train.report import RunReport, reporting
from hpc.train.saving import Saving, saving
from hpc.train.stateful_batches import (
    StatefulBatches,
    saved_state,
    state_of,
    training_batches,
)
from hpc.train.step import optimizer_step
from hpc.train.step_account import COMMUNICATION, StepAccount, step_account
from hpc.train.step_columns import StepColumns
from hpc.train.storage.store import open_checkpoint_store
from hpc.train.watch import Unwatched, Watch

# DeepSpeed leaves out an update with gradients that are no numbers, and notes it only in its log: a
# lost model would train on to the end of the run. So many in a row are no accident.
MAX_LEFT_OUT = 3
# An attempt that is stopped has little time left: what is not in the store then is copied later.
STORE_WAIT_SECONDS = {"finished": 600.0, "stopped": 10.0}


def train(
    spec: JobSpec, run_dir: Path, stop: Callable[[], bool], watch: Watch | None = None
) -> str:
    """Train the run of `spec`, from the newest good checkpoint of `run_dir` on.

    Returns "finished" with `run_dir/candidate` written, or "stopped" with a checkpoint written, at
    the end of the step, evaluation or checkpoint in which `stop()` became true on any rank. `watch`
    receives the progress. Raises `Diverged`, `CheckpointError`, and `ConfigError` for settings that
    do not fit together.
    """
    watch, here = watch or Unwatched(), Run(run_dir)
    config = train_config(spec.config)
    run, task = config.run, config.task
    kernels.use(run.kernels)
    with distributed.join() as world:
        randomness.seed_generators(run.seed)  # every rank makes the same model
        checkpoints = Checkpoints(
            here.checkpoints,
            retention(run),
            spec.digest,
            store=open_checkpoint_store(run.checkpoint_store) if run.checkpoint_store else None,
        )
        start = checkpoints.start(run, world)
        checkpoints = replace(checkpoints, protected=frozenset({start.step}))
        run = replace(run, gradient_accumulation_steps=start.way.gradient_accumulation_steps)
        config = replace(config, run=run)
        built = task.build_model(config.model, spec.dataset.folder)
        if spec.initial and start.step == 0:
            load_initial_weights(built, spec.initial)
        check_inherited(spec, start.step)
        model = engine.start(config, built, world, load_universal=start.way.convert)
        # From here on each rank draws its own numbers.
        randomness.seed_generators(run.seed + 1 + world.rank)
        rates = Rates(model.optimizer, config.schedule, run.steps)
        done = checkpoints.resume(model, world, start, run.seed)
        watch.resumed(done)
        account = step_account(world.device, recording=world.leads)
        with (
            reporting(spec, task.unit, here, done) if world.leads else nullcontext() as report,
            saving(checkpoints, world, done, run.checkpoint_async) as saves,
        ):
            if report:
                report.log_start(engine.engine_summary(model, world), done)
                report.columns = StepColumns(account, model, world, config.cluster)
            job = Job(spec, config, model, rates, world, saves, report, stop, watch, account, here)
            try:
                outcome = _steps(job, done, saved_state(start.folder, world.rank))
            finally:
                write_operators(job.here, world.rank, model.global_steps)
            if outcome == "finished":
                outcome = _finish(job, run_dir / "candidate")
            saves.hand_over(STORE_WAIT_SECONDS[outcome], watch)
            if report:
                # A stop by SIGTERM is for good; the signal before a limit is not.
                for_good = stop() and not getattr(stop, "requeue", True)
                report.outcome = "ended" if outcome == "stopped" and for_good else outcome
    return outcome


@dataclass(frozen=True)
class Job:
    """The parts that the steps of one attempt work with; `report` on rank 0 only."""

    spec: JobSpec
    config: TrainConfig
    model: Any  # the DeepSpeed engine
    rates: Rates
    world: World
    saves: Saving
    report: RunReport | None
    stop: Callable[[], bool]
    watch: Watch
    account: StepAccount
    here: Run

    def stopping(self) -> bool:
        """True on every rank once any of them has a stop signal; collective."""
        return self.world.total([float(self.stop())])[0] > 0

    @property
    def run(self) -> RunConfig:
        return self.config.run

    @property
    def task(self) -> Task:
        return self.config.task

    @property
    def dataset(self) -> Path:
        return self.spec.dataset.folder


def _steps(job: Job, done: int, loader_state: bytes | None) -> str:
    """Steps `done` + 1 to `run.steps`, the last one followed by a checkpoint; collective.

    `loader_state` is what the checkpoint of step `done` holds of this rank's loader.
    """
    run, world, report = job.run, job.world, job.report
    start_step = done * run.gradient_accumulation_steps
    order = MicroBatches(run.micro_batch_size, world.rank, world.size, run.seed, start_step)
    on_gpu = world.device.type == "cuda"
    batches = training_batches(
        lambda: job.task.batches(job.dataset, "train", order),
        loader_state,
        run.prefetch_batches,
        pinned=on_gpu,
    )
    account, micro_steps = job.account, run.gradient_accumulation_steps
    job.model.train()
    left_out, first = 0, done + 1
    if _owes_evaluation(job, done) and _evaluate(job, done):
        return "stopped"  # the checkpoint of this step is there
    while done < run.steps:
        began = time.perf_counter()
        rate, skipped = job.rates.set(done), job.model.skipped_steps
        mean, count = optimizer_step(
            job.task, job.model, batches, micro_steps, world.device, account
        )
        # One message a step: the mean loss, and whether any rank had a stop signal.
        total, seen, stopping = world.total([mean, count, float(job.stop())])
        account.mark(COMMUNICATION)
        loss = total / world.size
        done += 1
        left_out = left_out + 1 if job.model.skipped_steps > skipped else 0
        if not math.isfinite(loss) or left_out == MAX_LEFT_OUT:
            job.saves.wait()
            what = f"the loss became {loss}" if left_out == 0 else "the gradients are no numbers"
            raise Diverged(
                f"{what} in step {done}, at learning rate {rate:.3g}. The newest checkpoint is of "
                f"step {job.saves.durable_step}. Start a new run with a lower optim.lr, a longer "
                "optim.schedule.warmup_steps, or precision=fp32."
            )
        if report:
            report.log_step(done, loss, rate, seen, time.perf_counter() - began)
        if not stopping and _due(done, run.eval_interval) and done < run.steps:
            stopping = _evaluate(job, done)
        if stopping or _due(done, run.checkpoint_interval) or done == run.steps:
            began = time.perf_counter()
            job.watch.enter("checkpoint")
            layout = engine.layout_of(job.model, run, world)
            layout = replace(layout, stateful_loader=isinstance(batches, StatefulBatches))
            job.saves.save(job.model, done, layout, state_of(batches))
            stopping = stopping or job.stopping()
            if stopping or done == run.steps:
                job.saves.finish()
            if report:
                report.log_stall(done, time.perf_counter() - began)
            write_operators(job.here, world.rank, done)
        elif done == first:
            write_operators(job.here, world.rank, done)
        if report:
            report.log_saves(job.saves.ended())
        if stopping:
            return "stopped"
        job.watch.enter("step")
    return "finished"


def _owes_evaluation(job: Job, done: int) -> bool:
    """True where an earlier attempt was stopped before it had evaluated step `done`; collective."""
    if done == 0 or done == job.run.steps or not _due(done, job.run.eval_interval):
        return False
    owes = job.report is not None and not job.report.has_evaluation(done)
    return bool(job.world.from_leader(int(owes)))


def _evaluate(job: Job, done: int) -> bool:
    """Evaluate the model as it is, on rank 0, while the others wait; collective.

    With ZeRO-3 no rank has a whole model in between: only the end of a run is evaluated. Ends early
    for a stop signal, without metrics; returns whether any rank has one.
    """
    job.watch.enter("evaluation")
    if job.report and job.run.zero_stage < 3:
        model = job.model.module
        model.eval()
        try:
            with (
                torch.no_grad(),
                torch.random.fork_rng(),
                uncompiled(),
                polled(model, job.stop, job.watch),
            ):
                metrics = job.task.evaluate(model, job.dataset)
            job.report.log_evaluation(done, metrics)
        except StopHeard:
            pass
        model.train()
    return job.stopping()


def _finish(job: Job, candidate: Path) -> str:
    """Write the candidate of the trained model; collective, rank 0 does the work.

    Returns "finished", or "stopped" where a stop signal came before the export.
    """
    job.watch.enter("export")
    weights = whole_weights(job.model)
    written = False
    if report := job.report:

        def evaluated(metrics: Mapping[str, float]) -> None:
            if not report.has_evaluation(job.run.steps):  # by an attempt that was stopped here
                report.log_evaluation(job.run.steps, metrics)
            job.watch.enter("export")
            if job.stop():
                raise StopHeard

        try:
            evaluate_and_export(
                job.config,
                job.spec,
                weights,
                candidate,
                evaluated,
                lambda model: polled(model, job.stop, job.watch),
            )
            report.log_candidate(candidate)
            written = True
        except StopHeard:
            pass
    return "finished" if job.world.from_leader(int(written)) else "stopped"


def _due(done: int, interval: int) -> bool:
    return interval > 0 and done % interval == 0
