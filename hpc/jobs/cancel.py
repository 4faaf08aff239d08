"""Cancel a run and wait until it is gone."""

from __future__ import annotations

import time

from hpc.jobs.backend import find_backend
from hpc.jobs.errors import JobError
from hpc.jobs.queue import RunState, run_state
from hpc.jobs.run.files import read_record, write_cancelled
from hpc.jobs.run.folder import Run

POLL_S = 0.5


class CancelTimeout(JobError):
    """The job is still there a while after it was cancelled."""


def cancel(run: Run, timeout_s: float, early_stop: str = "") -> tuple[bool, RunState]:
    """End the run's job; returns whether there was something to end, and the state after.

    `early_stop` is why its sweep ends it, for the run's folder.
    The ranks get SIGTERM and may save. Raises `CancelTimeout` after `timeout_s` seconds, and
    `SchedulerUnavailable` when Slurm does not answer; both can simply be tried again. Raises
    `ConfigError` for a run of a scheduler without a backend here.
    """
    before = run_state(run)
    if before.over:
        return False, before
    record = read_record(run)
    find_backend(str(record.kind)).cancel(record, timeout_s)
    if early_stop:
        write_cancelled(run, early_stop)
    return True, _wait_until_over(run, timeout_s)


def _wait_until_over(run: Run, timeout_s: float) -> RunState:
    deadline = time.monotonic() + timeout_s
    while True:
        state = run_state(run)
        if state.over:
            return state
        if time.monotonic() > deadline:
            raise CancelTimeout(
                f"{run.name} was told to end and is still {state.state} after {timeout_s:.0f} s "
                f"({state.detail or 'no reason given'}). See: lockgate ls"
            )
        time.sleep(POLL_S)
