"""Run folders in the real format, written by the writers that a run uses, without a run."""

from __future__ import annotations

import json
import math
import os
from datetime import UTC, datetime
from pathlib import Path

from hpc.jobs.run.files import FailureFile, JobFile, RankFailure, StatusFile, write_run_file
from hpc.jobs.run.folder import Run
from serving.artifact import candidate
from tests.hpc.jobs.spec.test_job_spec import spec_of

BEGAN = 1_795_767_247
CONFIG = {
    "seed": 1,
    "steps": 400,
    "cluster": {
        "kind": "local", "slurm_conf": None, "mem_gb": 64.0, "tasks_per_node": 2,
        "timeout_min": 60, "pass_environment": [],
    },
    "optim": {"_target_": "hpc.optim.optimizers.AdamW", "lr": 3e-4},
    "site": {"paths": {"runs": "/secret/place"}},
}  # fmt: skip


def iso(after_s: float) -> str:
    return datetime.fromtimestamp(BEGAN + after_s, UTC).isoformat(timespec="seconds")


def write_run(
    runs: Path,
    name: str,
    config: dict | None = None,
    lines: list[dict] | None = None,
    state: str = "finished",
    resumed: tuple[int, ...] = (),
    error: RankFailure | None = None,
) -> Run:
    """A run of 400 steps, two seconds each, that was queued for a minute.

    `resumed` are the steps after which attempts went on, five minutes after the one before ended.
    """
    run = Run(runs / name)
    run.logs.mkdir(parents=True)
    spec_of(CONFIG | (config or {})).write(run.spec_path)
    write_run_file(run.job, JobFile("local", "4", iso(0), "train", 2))
    lines = metric_lines(resumed=resumed) if lines is None else lines
    run.metrics.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    end = max((line["time"] for line in lines if "time" in line), default=BEGAN + 60) - BEGAN + 45
    for number, step in enumerate((0, *resumed), 1):
        words = f"resumed after step {step}" if step else "a new run"
        log = run.logs / f"{number}-0.log"
        log.write_text(f"6,164,480 parameters\n{words}\nstep 10/400\n")
        if number <= len(resumed):
            code = run.exit_code(number)
            code.write_text("75\n")
            ended = BEGAN + ended_after(resumed, number)
            os.utime(code, (ended, ended))
    attempt = len(resumed) + 1
    attempt_began = ended_after(resumed, attempt - 1) + 280 if resumed else 60
    status = StatusFile(
        "running" if state == "failed" else state,  # type: ignore[arg-type]
        attempt, name, "4", 2, "n1", iso(60), iso(attempt_began),
        None if state in ("running", "failed") else iso(end),
    )  # fmt: skip
    write_run_file(run.status, status)
    if state == "failed":
        error = error or RankFailure("Diverged", "the loss became nan in step 400", 1)
        write_run_file(run.failure, FailureFile(attempt, iso(end), error, name, "4"))
    if state == "finished":
        (run.folder / "candidate").mkdir()
        written = run.folder / "candidate" / candidate.FILE
        written.write_text("{}")
        os.utime(written, (BEGAN + end - 3, BEGAN + end - 3))
    return run


def ended_after(resumed: tuple[int, ...], attempt: int) -> int:
    """Seconds from the submit to the end of an attempt that another one follows."""
    step = resumed[attempt - 1]
    return 80 + 2 * step + 20 * (step // 100) + 300 * (attempt - 1) + 4


def metric_lines(
    scale: float = 1.0, steps: int = 400, interval: int = 10, resumed: tuple[int, ...] = ()
) -> list[dict]:
    """A falling loss every `interval` steps, an evaluation of 20 s every 100 of them."""
    found = []
    late = 80.0
    for step in range(interval, steps + 1, interval):
        late += 300 * sum(step - interval == one for one in resumed)
        at = BEGAN + late + 2 * step
        loss = scale * (1.5 + 9 * math.exp(-step / 80) + 0.2 * math.sin(step * 1.7))
        rate = 3e-4 * min(step / 50, 1, (steps - step) / 100 + 0.01)
        found.append({
            "time": at, "step": step, "loss": loss, "lr": rate, "tokens_per_second": 4000 + step,
            "step_seconds": 2.0, "data_seconds": 0.2, "forward_seconds": 0.6,
            "backward_seconds": 0.9,
        })  # fmt: skip
        if step % 100 == 0:
            late += 20
            held_out = {"validation_log_loss": loss * 1.05, "validation_auc": 1 / (1 + loss)}
            found.append({"time": at + 20, "step": step, **held_out})
    return found
