"""The part submit: from Enter to the prompt, one run and a sweep of 40, on the running site.

`lockgate train` beside Hydra's launcher for submitit, as the user `train`, with jobs of the same
size on the same partition. The launcher gives the prompt back when all of its jobs have ended; its
time here is that until the 40th job is with Slurm, when it is stopped. Slurm counts its own RPCs
(sdiag), those of everybody: the site should have no other users meanwhile.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from conf import compose
from scripts.box.identity import REPO
from scripts.train_bench.failure import BenchFailed
from scripts.train_bench.goals import PROMPT, SWEEP, SWEEP_RPCS, SWEEP_TOOL

LAUNCHER = "hydra-submitit-launcher==1.2.0"
TRIALS = 40
LIMIT_S = 240
POLL_S = 0.05
RPC = re.compile(r"^\s*(REQUEST_\w+|MESSAGE_\w+)\s*\(\s*\d+\)\s*count:(\d+)", re.MULTILINE)
APP = """\
import hydra

@hydra.main(version_base=None, config_path=None, config_name=None)
def main(config):
    return 0.0

if __name__ == "__main__":
    main()
"""
QUIET = ("REQUEST_NODE_INFO", "REQUEST_PARTITION_INFO", "MESSAGE_NODE_REGISTRATION_STATUS")
"""RPCs of daemons and of the site's own exporter rather than of a submit: polls of nodes."""


@dataclass(frozen=True)
class SubmitFigures:
    """Seconds from Enter to the prompt, and RPCs; None for a launcher that could not run."""

    single: Sequence[float]
    sweep_seconds: float
    sweep_rpcs: int
    tool_seconds: float | None
    tool_rpcs: int | None


def measure_submit(task: str, progress: Callable[[str], None]) -> SubmitFigures:
    """Submit runs of `task`, whose dataset is prepared, and cancel them. Raises `BenchFailed`."""
    if not task:
        raise BenchFailed("name a task whose dataset is prepared there, as in --task NAME")
    words = f"task={task} steps=1 cluster.mem_gb=1"
    lockgate = REPO / ".venv" / "bin" / "lockgate"
    others = _jobs()
    try:
        progress("submit: one run, five times")
        single = [_timed(f"{lockgate} train {words} seed={700 + turn}")[0] for turn in range(5)]
        progress(f"submit: a sweep of {TRIALS}")
        seeds = ",".join(str(1000 + trial) for trial in range(TRIALS))
        before = _rpcs()
        sweep, answer = _timed(f"{lockgate} train -m {words} seed={seeds}")
        rpcs = _rpcs() - before
        if answer.count("job") < TRIALS:
            progress(f"submit: the sweep's answer: {answer.strip().splitlines()[-1]}")
    finally:
        _cancel_all_but(others)
    progress(f"submit: a sweep of {TRIALS} by {LAUNCHER}")
    tool = _launcher_sweep(compose("train", [f"task={task}"]).cluster.partition)
    return SubmitFigures(single, sweep, rpcs, *(tool or (None, None)))


def submit_values(found: SubmitFigures) -> tuple[dict[str, float], dict[str, float]]:
    """The goals' values by name, and the launcher's as bounds."""
    values = {
        PROMPT: median(found.single),
        SWEEP: found.sweep_seconds,
        SWEEP_TOOL: found.sweep_seconds,
        SWEEP_RPCS: float(found.sweep_rpcs),
    }
    if found.tool_seconds is None or found.tool_rpcs is None:
        return values, {}
    return values, {SWEEP_TOOL: found.tool_seconds, SWEEP_RPCS: float(found.tool_rpcs)}


def submit_rows(found: SubmitFigures) -> list[tuple[str, ...]]:
    """Rows of a table: what was submitted, seconds, RPCs."""
    rows: list[tuple[str, ...]] = [
        ("lockgate train", f"{median(found.single):.2f}", ""),
        (f"lockgate train -m, {TRIALS}", f"{found.sweep_seconds:.2f}", str(found.sweep_rpcs)),
    ]
    if found.tool_seconds is not None:
        rows.append((f"{LAUNCHER}, {TRIALS}", f"{found.tool_seconds:.2f}", str(found.tool_rpcs)))
    return rows


def rpc_count(sdiag: str) -> int:
    """All RPCs that the text of `sdiag` counts by type, without those of `QUIET`."""
    return sum(int(count) for name, count in RPC.findall(sdiag) if name not in QUIET)


def _launcher_sweep(partition: str) -> tuple[float, int] | None:
    """Seconds and RPCs until its 40th job is with Slurm; None where it cannot be installed."""
    python = _launcher_python()
    if python is None:
        return None
    folder = Path(_as_train("mktemp -d").strip())
    _as_train(f"tee {folder}/app.py", text=APP)
    command = shlex.join([
        str(python), str(folder / "app.py"), "-m", "hydra/launcher=submitit_slurm",
        f"hydra.launcher.partition={partition}", "hydra.launcher.mem_gb=1",
        "hydra.launcher.timeout_min=5", f"hydra.sweep.dir={folder}/out",
        "hydra.launcher.cpus_per_task=1", f"+seed={','.join(map(str, range(TRIALS)))}",
    ])  # fmt: skip
    others = _jobs()
    before, began = _rpcs(), time.perf_counter()
    process = subprocess.Popen(
        [*_AS_TRAIN, "bash", "-c", f"cd {folder} && exec {command}"], cwd=REPO,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        while len(list(folder.glob("out/.submitit/*/*_submitted.pkl"))) < TRIALS:
            if process.poll() is not None:
                output = process.stdout.read() if process.stdout else ""
                raise BenchFailed(f"{LAUNCHER}: {output.strip().splitlines()[-1:]}")
            if time.perf_counter() - began > LIMIT_S:
                raise BenchFailed(f"{LAUNCHER}: its jobs were not with Slurm in {LIMIT_S} s")
            time.sleep(POLL_S)
        return time.perf_counter() - began, _rpcs() - before
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
        _cancel_all_but(others)
        _as_train(f"rm -rf {folder}", check=False)


def _jobs() -> set[str]:
    """Ids of the jobs in the queue; of an array its own."""
    return set(_as_train("squeue --noheader --format=%F").split())


def _cancel_all_but(others: set[str]) -> None:
    """Cancel the jobs that came since `others` were in the queue."""
    if mine := sorted(_jobs() - others):
        _as_train(f"scancel {' '.join(mine)}", check=False)


def _launcher_python() -> Path | None:
    """The interpreter of build/train-bench-venv, which is made when it is not there."""
    folder = REPO / "build" / "train-bench-venv"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        for argv in (
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", LAUNCHER],
        ):
            if subprocess.run(argv, capture_output=True, timeout=600, check=False).returncode:
                return None
        (folder / "ready").touch()
    return python


_AS_TRAIN = (str(REPO / "scripts" / "site"), "as", "train")


def _timed(command: str) -> tuple[float, str]:
    """Seconds of `command` as the user train, without those of becoming that user; its output."""
    clock = "date +%s.%N"
    output = _as_train(f"{clock}; {command}; code=$?; {clock}; exit $code")
    lines = output.strip().splitlines()
    return float(lines[-1]) - float(lines[0]), "\n".join(lines[1:-1])


def _rpcs() -> int:
    return rpc_count(_as_train("sdiag"))


def _as_train(command: str, text: str = "", check: bool = True) -> str:
    """The output of a shell line as the site's user train. Raises `BenchFailed`."""
    done = subprocess.run(
        [*_AS_TRAIN, "bash", "-c", command], cwd=REPO, input=text, capture_output=True, text=True,
        timeout=LIMIT_S, check=False,
    )  # fmt: skip
    if check and done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise BenchFailed(f"{command.split()[0]}: {lines[-1] if lines else done.returncode}")
    return done.stdout
