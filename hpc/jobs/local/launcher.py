"""`python -m hpc.jobs.local.launcher SPEC DIGEST`: the parent of a local run, in its own session.

It starts the ranks through submitit, waits for them, and ends them when one has failed while the
others wait for it, as srun does on a cluster.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from submitit import LocalExecutor

from hpc.jobs.local.turn import wait_for_turn
from hpc.jobs.rank import entry
from hpc.jobs.run.files import TrialFile, read_run_file, read_status
from hpc.jobs.run.folder import Run, sweep_folder
from hpc.jobs.run.states import FAILED, FINISHED
from hpc.jobs.spec.config import ClusterConfig, cluster_config
from hpc.jobs.spec.job_spec import read_spec

POLL_S = 0.5
GRACE_S = 20.0  # from the first failed rank to the end of the others


def main(argv: list[str]) -> int:
    """Run one run's ranks to their end; 0 when it finished. Raises `SpecChanged`."""
    spec_path, digest = argv
    run = Run(Path(spec_path).parent)
    # `lockgate cancel` signals the whole session: the ranks save, and this process waits for them.
    terminated: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: terminated.append(number))
    cluster = cluster_config(read_spec(run.spec_path, digest).config)
    trial = read_run_file(TrialFile, run.trial).value
    if trial is not None and cluster.sweep_parallel is not None:
        turns = sweep_folder(run.folder.parent, trial.sweep) / "turns"
        if not wait_for_turn(turns, cluster.sweep_parallel, lambda: bool(terminated)):
            return 1
    job = executor(cluster, run).submit(entry.run, spec_path, digest)
    wait(job.done, lambda: _written_state(run) == FAILED, end_session)
    return 0 if _written_state(run) == FINISHED else 1


def executor(cluster: ClusterConfig, run: Run) -> LocalExecutor:
    """submitit's local executor for this run."""
    made = LocalExecutor(folder=run.submitit)
    made.update_parameters(
        tasks_per_node=cluster.tasks_per_node,
        gpus_per_node=cluster.gpus_per_node,
        timeout_min=cluster.timeout_min,
        signal_delay_s=cluster.signal_delay_s,
    )
    return made


def wait(done: Callable[[], bool], failed: Callable[[], bool], end: Callable[[], None]) -> None:
    """Wait until `done`; when a rank has `failed` and the others do not follow, `end` them."""
    deadline: float | None = None
    while not done():
        if deadline is None and failed():
            deadline = time.monotonic() + GRACE_S
        if deadline is not None and time.monotonic() > deadline:
            end()
        time.sleep(POLL_S)


def end_session() -> None:
    """Kill every process of this session, this one last of all."""
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _written_state(run: Run) -> str | None:
    status = read_status(run).value
    return status.state if status else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
