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
from typing import Any

from scripts.box.identity import REPO
from scripts.train_bench.failure import BenchFailed
from scripts.train_bench.goals import DEEPSPEED, TORCH
from scripts.train_bench.run_folder import toy_run

ACCELERATE = "accelerate==1.15.0"
LIMIT_S = 1500
OURS = "Lockgate"
STAGES = {2: ("bare DeepSpeed",), 0: ("bare PyTorch", "Hugging Face Trainer")}
"""Loops beside ours, by the ZeRO stage of both: a loop without DeepSpeed partitions nothing, and is
compared with one that does not either. 2 is the default of a run."""
_GOALS = {"bare DeepSpeed": DEEPSPEED, "bare PyTorch": TORCH}


@dataclass(frozen=True)
class StepFigures:
    """Seconds of each step of each loop, in turns; loops that could not run, with the reason."""

    zero_stage: int
    wall: Mapping[str, Sequence[float]]
    cpu: Mapping[str, Sequence[float]]
    missing: Mapping[str, str]

    def ratio(self, other: str, seconds: Mapping[str, Sequence[float]]) -> float:
        """Our step over that of `other`, the median of pairs that stand beside one another.

        In a pair our step follows the other's round: what a busy machine does meets both.
        """
        pairs = zip(seconds[OURS], seconds[other], strict=False)  # the others began a round earlier
        return median(ours / theirs for ours, theirs in pairs)


def measure_steps(rounds: int, progress: Callable[[str], None]) -> list[StepFigures]:
    """`rounds` steps of each loop in turns, with one thread, on a CPU and in fp32, by ZeRO stage.

    Raises `BenchFailed` where our loop or a bare one cannot run.
    """
    made = []
    with tempfile.TemporaryDirectory(prefix="lockgate-bench-") as folder:
        installed = _accelerate(Path(folder))
        for stage, others in STAGES.items():
            progress(f"step: {rounds} rounds at ZeRO stage {stage}, beside {', '.join(others)}")
            run_in = Path(folder) / str(stage)
            run_in.mkdir()
            run = toy_run(run_in, 10**6, f"zero_stage={stage}")
            found = _measured(run, rounds, others, installed)
            made.append(StepFigures(stage, found["wall"], found["cpu"], found["missing"]))
    return made


def _measured(run: Path, rounds: int, others: Sequence[str], installed: Path) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.train_bench.one_process", str(run), str(rounds), *others],
        cwd=REPO, env=one_rank(installed), capture_output=True, text=True, timeout=LIMIT_S,
        check=False,
    )  # fmt: skip
    try:
        return json.loads(done.stdout)
    except ValueError:
        lines = done.stderr.strip().splitlines()
        raise BenchFailed(lines[-1] if lines else f"exit code {done.returncode}") from None


def step_values(found: Sequence[StepFigures]) -> dict[str, float]:
    """The goals' values by name: ratios of wall time."""
    return {
        goal: one.ratio(name, one.wall)
        for one in found
        for name, goal in _GOALS.items()
        if name in one.wall
    }


def step_rows(found: Sequence[StepFigures]) -> list[tuple[str, ...]]:
    """Rows of a table: loop, median wall and CPU milliseconds, ours over it in both."""
    return [row for one in found for row in _rows(one)]


def _rows(found: StepFigures) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name in found.wall:
        wall, cpu = median(found.wall[name]), median(found.cpu[name])
        ratios = (
            ("", "")
            if name == OURS
            else (f"{found.ratio(name, found.wall):.3f}", f"{found.ratio(name, found.cpu):.3f}")
        )
        named = f"{name}, ZeRO-{found.zero_stage}" if name == OURS else name
        rows.append((named, f"{wall * 1000:.1f}", f"{cpu * 1000:.1f}", *ratios))
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
