"""Runs on this machine: a session of processes per run, started through submitit's local executor.

The job id is the pid of the session's leader, `hpc.jobs.local.launcher`.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from conf.user import user_name
from hpc.jobs.local.process import is_running, started_ticks
from hpc.jobs.run.array import RunArray
from hpc.jobs.run.files import JobFile, RunRecord, utc_now, write_cancelled
from hpc.jobs.run.folder import Run
from hpc.jobs.run.states import (
    CANCELLED,
    ENDING,
    FAILED,
    FINISHED,
    NOT_SUBMITTED,
    QUEUED,
    REQUEUED,
    RUNNING,
    STOPPED,
    UNKNOWN,
    Standing,
)
from hpc.jobs.spec.config import ClusterConfig

KIND = "local"
ALIVE = {REQUEUED: REQUEUED, ENDING: ENDING, FAILED: ENDING}
"""The state of a run whose launcher runs, by the state in its files; any other one runs."""
GRACE_S = 30.0  # for saving a checkpoint, before the processes are killed
KILL_S = 5.0  # for the kernel to end killed processes


class LocalBackend:
    """The local executor as a `hpc.jobs.backend.Backend`."""

    def environment(self, cluster: ClusterConfig, ambient: Mapping[str, str]) -> dict[str, str]:
        """Nothing more."""
        return {}

    def script(self, cluster: ClusterConfig, run: Run, digest: str) -> str:
        """The launcher's command line."""
        return shlex.join(_command(run, digest)) + "\n"

    def array_script(self, cluster: ClusterConfig, array: RunArray, digests: Sequence[str]) -> str:
        """The launchers' command lines, one per run."""
        pairs = zip(array.runs, digests, strict=True)
        return "".join(self.script(cluster, run, digest) for run, digest in pairs)

    def check_size(self, cluster: ClusterConfig, variables: Mapping[str, str]) -> None:
        """Processes share this machine, however many they are."""

    def expected_start(self, script: str, variables: Mapping[str, str]) -> str | None:
        """None: it starts at once, or when its turn in a sweep comes."""
        return None

    def require_ready(self, variables: Mapping[str, str], train_user: str) -> None:
        """This machine is always there, for every user."""

    def submit(
        self, cluster: ClusterConfig, run: Run, digest: str, variables: Mapping[str, str]
    ) -> JobFile:
        """Start the launcher in a session of its own; its output goes to launcher.log."""
        with (run.logs / "launcher.log").open("ab") as log:
            process = subprocess.Popen(
                _command(run, digest), env=dict(variables), cwd=run.folder,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        return JobFile(
            kind=KIND,
            job_id=str(process.pid),
            submitted=utc_now(),
            user=user_name(),
            ranks=cluster.ranks,
            process_started=started_ticks(process.pid),
        )

    def submit_array(
        self,
        cluster: ClusterConfig,
        array: RunArray,
        digests: Sequence[str],
        variables: Mapping[str, str],
    ) -> list[JobFile]:
        """Start the launchers; each waits for its turn in the sweep."""
        jobs: list[JobFile] = []
        try:
            for run, digest in zip(array.runs, digests, strict=True):
                jobs.append(self.submit(cluster, run, digest, variables))
        except BaseException:
            for job in jobs:
                _end_session(int(job.job_id), job.process_started, 0.0)
            raise
        return jobs

    def withdraw(self, job_name: str, variables: Mapping[str, str]) -> None:
        """Nothing waits in a queue; the launcher of a run without a folder ends by itself."""

    def cancel(self, record: RunRecord, timeout_s: float) -> None:
        """SIGTERM, which lets the ranks save, and SIGKILL after a while; returns when all ended."""
        write_cancelled(record.run)
        if record.job is not None and record.job.job_id.isdecimal():
            _end_session(int(record.job.job_id), record.job.process_started, timeout_s)

    def standings(self, records: Sequence[RunRecord]) -> dict[str, Standing]:
        """The state of each run from its launcher and from the files of its ranks."""
        return {record.run.name: local_standing(record) for record in records}


def local_standing(record: RunRecord) -> Standing:
    """The state of a local run: its own end, or else whether its processes run."""
    status = record.status
    state = status.state if status else None
    if state == FINISHED:
        return Standing(FINISHED, "", "status.json")
    if job_is_alive(record.job):
        if status is None and _waits_for_turn(record):
            return Standing(QUEUED, "waits for its turn in the sweep", "process")
        ended = record.failure_line if state == REQUEUED else ""
        return Standing(ALIVE.get(state or "", RUNNING), ended, "process")
    if record.cancelled:
        return Standing(CANCELLED, "", "cancelled.json")
    if status is not None and state == FAILED:
        return Standing(FAILED, record.failure_line, "failure.json")
    if state == STOPPED:
        return Standing(STOPPED, "its processes were told to end, and saved", "status.json")
    if record.job is not None:
        return Standing(FAILED, "its processes are gone; see the log", "process")
    if record.problems:
        return Standing(UNKNOWN, "its processes are not known", "job.json")
    detail = "the submit was interrupted; this folder can be removed"
    return Standing(NOT_SUBMITTED, detail, "job.json")


def _waits_for_turn(record: RunRecord) -> bool:
    """True for a trial whose launcher has not started its ranks yet: they would have logs."""
    return record.trial is not None and not any(record.run.logs.glob("*-*.log"))


def job_is_alive(job: JobFile | None) -> bool:
    """True while the launcher of this very job runs on this machine."""
    if job is None or not job.job_id.isdecimal():
        return False
    return is_running(int(job.job_id), job.process_started)


def _command(run: Run, digest: str) -> list[str]:
    return [sys.executable, "-m", "hpc.jobs.local.launcher", str(run.spec_path), digest]


def _end_session(pid: int, started: int | None, timeout_s: float) -> None:
    def gone() -> bool:
        return not is_running(pid, started)

    # The run's parent leads a session of its own, so its group is the run and nothing else.
    for number, patience_s in ((signal.SIGTERM, min(GRACE_S, timeout_s)), (signal.SIGKILL, KILL_S)):
        if gone():
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, number)
        _wait_until(gone, patience_s)


def _wait_until(condition: Callable[[], bool], patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
