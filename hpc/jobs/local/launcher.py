"""`python -m hpc.jobs.local.launcher SPEC DIGEST`: the parent of a local run, in its own session.

It starts the ranks of an attempt through submitit, waits for them, ends them when one has failed
while the others wait for it, as srun does on a cluster, and starts the next attempt where the run
comes back.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from submitit import LocalExecutor

from conf.modes import share_new_files
from hpc.jobs.cause.attempt_end import end_attempt
from hpc.jobs.cause.evidence import ended_orderly
from hpc.jobs.cause.gather import part_of_log, rank_streams
from hpc.jobs.local.process import rank_processes
from hpc.jobs.local.turn import wait_for_turn
from hpc.jobs.rank import entry
from hpc.jobs.rank.exit_codes import REQUEUE, TRAINING_FAILED
from hpc.jobs.rank.rendezvous import LOCAL_ATTEMPT
from hpc.jobs.run.files import TrialFile, read_run_file
from hpc.jobs.run.folder import Run, sweep_folder
from hpc.jobs.spec.config import ClusterConfig, cluster_config
from hpc.jobs.spec.job_spec import read_spec

POLL_S = 0.5
GRACE_S = 5.0  # from the first failed rank to the end of the others


def main(argv: list[str]) -> int:
    """Run one run's ranks to their end, attempt by attempt; 0 when it finished.

    Raises `SpecChanged`.
    """
    spec_path, digest = argv
    run = Run(Path(spec_path).parent)
    share_new_files()
    cluster = cluster_config(read_spec(run.spec_path, digest).config)
    # `lockgate cancel` signals the whole session: the ranks save, and this process waits for them.
    terminated: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: terminated.append(number))
    trial = read_run_file(TrialFile, run.trial).value
    if trial is not None and cluster.sweep_parallel is not None:
        turns = sweep_folder(run.folder.parent, trial.sweep) / "turns"
        if not wait_for_turn(turns, cluster.sweep_parallel, lambda: bool(terminated)):
            return 1
    attempt, code = 1, REQUEUE
    while code == REQUEUE:
        os.environ[LOCAL_ATTEMPT] = str(attempt)
        print(f"lockgate: attempt {attempt} starts", flush=True)
        job = executor(cluster, run).submit(entry.run, spec_path, digest)
        ranks = Ranks(run, attempt, int(job.job_id))
        wait(job.done, ranks.failed, ranks.end)
        code = end_attempt(run, attempt, TRAINING_FAILED).exit_code
        attempt += 1
    return code


def executor(cluster: ClusterConfig, run: Run) -> LocalExecutor:
    """submitit's local executor for one attempt of this run."""
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


class Ranks:
    """The processes of one attempt: children of submitit's controller, whose pid is the job's."""

    def __init__(self, run: Run, attempt: int, controller: int) -> None:
        self._run, self._attempt, self._controller = run, attempt, controller
        self._seen: set[int] = set()

    def failed(self) -> bool:
        """True once a rank has left a code, or is gone without its last words."""
        if self._run.exit_code(self._attempt).exists():
            return True
        running = set(rank_processes(self._controller))
        gone = self._seen - running
        self._seen |= running
        silent = sorted(rank for rank in gone if not self._ended_orderly(rank))
        for rank in silent:
            print(f"lockgate: rank {rank} is gone without a word", flush=True)
        return bool(silent)

    def end(self) -> None:
        """Kill the ranks that are left; the controller then ends by itself."""
        for pid in rank_processes(self._controller).values():
            os.kill(pid, signal.SIGKILL)

    def _ended_orderly(self, rank: int) -> bool:
        logs = [path for *key, path in rank_streams(self._run) if key == [self._attempt, rank]]
        return any(ended_orderly(part_of_log(path, end=True)) for path in logs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
