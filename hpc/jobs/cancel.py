"""Cancel a run and wait until it is gone."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime

from hpc.jobs.errors import JobError
from hpc.jobs.marker import read_marker, write_marker
from hpc.jobs.process import is_running
from hpc.jobs.queue import CANCELLED, ENDING, RunState, run_state
from hpc.jobs.run import Run
from hpc.jobs.scheduler import ask

POLL_S = 0.5
LOCAL_GRACE_S = 30.0  # for saving a checkpoint, before the processes are killed


class NotGone(JobError):
    """The job was told to end and is still there."""


def cancel(run: Run, timeout_s: float) -> tuple[bool, RunState]:
    """End the run's job; returns whether there was something to end, and the state after.

    The ranks get SIGTERM and may save. Raises `NotGone` after `timeout_s`, and
    `SchedulerUnavailable` when Slurm does not answer; both can simply be tried again.
    """
    before = run_state(run)
    if before.over:
        return False, before
    marker = read_marker(run.job)
    if marker.get("kind") == "local":
        _mark(run)
        _end_local(int(marker["job_id"]), marker.get("process_started"), timeout_s)
    else:
        slurm_conf = marker.get("slurm_conf") or run.spec.config.cluster.slurm_conf
        variables = {"SLURM_CONF": slurm_conf} if slurm_conf else {}
        ask(["scancel", before.job_id or f"--name={run.name}"], variables)
        _mark(run)
    return True, _until_over(run, timeout_s)


def _until_over(run: Run, timeout_s: float) -> RunState:
    deadline = time.monotonic() + timeout_s
    while True:
        state = run_state(run)
        if state.over and state.state != ENDING:
            return state
        if time.monotonic() > deadline:
            raise NotGone(
                f"{run.name} was told to end and is still {state.state} after {timeout_s:.0f} s "
                f"({state.detail or 'no reason given'}). See: lockgate ls"
            )
        time.sleep(POLL_S)


def _end_local(pid: int, started: int | None, timeout_s: float) -> None:
    def gone() -> bool:
        return not is_running(pid, started)

    # The run's parent leads a session of its own, so its group is the run and nothing else.
    grace = min(LOCAL_GRACE_S, timeout_s)
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        if gone():
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, number)
        _wait(gone, patience)


def _wait(condition: Callable[[], bool], patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


def _mark(run: Run) -> None:
    content = {
        "state": CANCELLED,
        "by": pwd.getpwuid(os.getuid()).pw_name,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_marker(run.cancelled, content)
