"""The part step: a step of our loop against the same step of other loops, in one process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from scripts.box.identity import REPO
from scripts.train_bench.failure import BenchFailed
from scripts.train_bench.goals import DEEPSPEED, TORCH
from scripts.train_bench.run_folder import toy_run

ACCELERATE = "accelerate==1.15.0"
LIMIT_S = 1500
OURS = "Lockgate"


@dataclass(frozen=True)
class StepFigures:
    """Seconds of each step of each loop, in turns; loops that could not run, with the reason."""

    wall: Mapping[str, Sequence[float]]
    cpu: Mapping[str, Sequence[float]]
    missing: Mapping[str, str]

    def ratio(self, other: str, seconds: Mapping[str, Sequence[float]]) -> float:
        """Our step over that of `other`, the median of pairs that stand beside one another.

        In a pair our step follows the other's round: what a busy machine does meets both.
        """
        pairs = zip(seconds[OURS], seconds[other], strict=False)  # the others began a round earlier
        return median(ours / theirs for ours, theirs in pairs)


def measure_steps(rounds: int, progress: Callable[[str], None]) -> StepFigures:
    """`rounds` steps of each loop in turns, with one thread, on a CPU and in fp32.

    Raises `BenchFailed` where our loop or a bare one cannot run.
    """
    progress(f"step: {rounds} rounds of each loop in turns")
    with tempfile.TemporaryDirectory(prefix="lockgate-bench-") as folder:
        run = toy_run(Path(folder), steps=10**6)
        done = subprocess.run(
            [sys.executable, "-m", "scripts.train_bench.one_process", str(run), str(rounds),
             "beside"],
            cwd=REPO, env=one_rank(_accelerate(Path(folder))), capture_output=True, text=True,
            timeout=LIMIT_S, check=False,
        )  # fmt: skip
    try:
        found = json.loads(done.stdout)
    except ValueError:
        lines = done.stderr.strip().splitlines()
        raise BenchFailed(lines[-1] if lines else f"exit code {done.returncode}") from None
    return StepFigures(found["wall"], found["cpu"], found["missing"])


def step_values(found: StepFigures) -> dict[str, float]:
    """The goals' values by name: ratios of wall time."""
    return {
        DEEPSPEED: found.ratio("bare DeepSpeed", found.wall),
        TORCH: found.ratio("bare PyTorch", found.wall),
    }


def step_rows(found: StepFigures) -> list[tuple[str, ...]]:
    """Rows of a table: loop, median wall and CPU seconds, ours over it in both."""
    rows: list[tuple[str, ...]] = []
    for name in found.wall:
        wall, cpu = median(found.wall[name]), median(found.cpu[name])
        ratios = (
            ("", "")
            if name == OURS
            else (f"{found.ratio(name, found.wall):.3f}", f"{found.ratio(name, found.cpu):.3f}")
        )
        rows.append((name, f"{wall * 1000:.1f}", f"{cpu * 1000:.1f}", *ratios))
    rows += [(name, "not measured:", reason, "", "") for name, reason in found.missing.items()]
    return rows


def one_rank(*paths: Path) -> dict[str, str]:
    """The environment of one rank with one thread, `paths` before its import path."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, [REPO, *paths])),
        "OMP_NUM_THREADS": "1",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _accelerate(folder: Path) -> Path:
    """A folder with `accelerate`, which Trainer needs; empty where it cannot be installed."""
    target = folder / "accelerate"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target),
         ACCELERATE],
        capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    return target
