"""The part stall: how long a checkpoint holds up the steps, asynchronous against synchronous."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from hpc.jobs.spec.config import RunConfig
from hpc.train.metrics_log import read_metrics
from scripts.box.identity import REPO
from scripts.train_bench.failure import BenchFailed
from scripts.train_bench.goals import STALL
from scripts.train_bench.run_folder import toy_run
from scripts.train_bench.steps import one_rank

KEY = "checkpoint_async"
INTERVAL, CHECKPOINTS = 6, 5
LIMIT_S = 600


@dataclass(frozen=True)
class StallFigures:
    """Seconds for which each checkpoint held up the steps, of both ways to save."""

    asynchronous: Sequence[float]
    synchronous: Sequence[float]


def measure_stall(progress: Callable[[str], None]) -> StallFigures:
    """Two runs of the same model, their checkpoints saved in either way. Raises `BenchFailed`."""
    if KEY not in {one.name for one in fields(RunConfig)}:
        raise BenchFailed(f"conf/train.yaml has no {KEY}; every checkpoint is synchronous")
    found: Mapping[bool, list[float]] = {True: [], False: []}
    for way in (False, True):
        progress(f"stall: {CHECKPOINTS} checkpoints with {KEY}={str(way).lower()}")
        with TemporaryDirectory(prefix="lockgate-bench-") as folder:
            words = [f"{KEY}={str(way).lower()}", f"checkpoint_interval={INTERVAL}"]
            run = toy_run(Path(folder), 10**6, *words)
            stop = INTERVAL * CHECKPOINTS + INTERVAL // 2
            done = subprocess.run(
                [sys.executable, "-m", "scripts.train_bench.one_process", str(run), str(stop)],
                cwd=REPO, env=one_rank(), capture_output=True, text=True, timeout=LIMIT_S,
                check=False,
            )  # fmt: skip
            lines = read_metrics(run / "metrics.jsonl")
            # The last one is of the stop, which always waits for it.
            found[way].extend([
                line["checkpoint_stall_seconds"]
                for line in lines
                if "checkpoint_stall_seconds" in line and line["step"] % INTERVAL == 0
            ])  # fmt: skip
            if len(found[way]) < CHECKPOINTS:
                errors = done.stderr.strip().splitlines()
                raise BenchFailed(errors[-1] if errors else "too few checkpoints were written")
    return StallFigures(found[True], found[False])


def stall_values(found: StallFigures) -> dict[str, float]:
    """The goal's value by name: the ratio of the medians."""
    return {STALL: median(found.asynchronous) / median(found.synchronous)}


def stall_rows(found: StallFigures) -> list[tuple[str, ...]]:
    """Rows of a table: the way to save, and its median stall."""
    pairs = (("asynchronous", found.asynchronous), ("synchronous", found.synchronous))
    return [(way, f"{median(seconds) * 1000:.1f}") for way, seconds in pairs]
