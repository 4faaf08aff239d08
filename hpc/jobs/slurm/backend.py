"""Runs through Slurm: sbatch by submitit, scancel, and a run's state from Slurm and its folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from datetime import UTC, datetime
from io import StringIO

from submitit.core.utils import FailedJobError, FailedSubmissionError

from conf import ConfigError
from conf.user import user_name
from hpc.jobs.errors import SchedulerUnavailable, SubmitRefused, UsageError, error_line
from hpc.jobs.rank import entry
from hpc.jobs.run.array import RunArray
from hpc.jobs.run.files import (
    JobFile,
    RunRecord,
    StatusFile,
    utc_now,
    write_cancelled,
)
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
    UNKNOWN,
    Standing,
)
from hpc.jobs.slurm import limits, sbatch
from hpc.jobs.slurm.commands import controller_is_up, query, require_controller, sbatch_test
from hpc.jobs.slurm.container import check_version
from hpc.jobs.slurm.jobs import SlurmJob, find_jobs, wanted_job
from hpc.jobs.spec.config import ClusterConfig

KIND = "slurm"
EXPECTED_START = re.compile(r"\bJob \d+ to start at (\d{4}-\d\d-\d\dT[\d:]{5,8})\b")
# A job that failed although it wants to go on was not requeued, once this long has passed.
REQUEUE_TAKES_S = 60.0
# Slurm's long state names (https://slurm.schedmd.com/squeue.html#SECTION_JOB-STATE-CODES); another
# one is shown as unknown with Slurm's own word.
SLURM_STATES = {
    QUEUED: "PENDING CONFIGURING RESV_DEL_HOLD",
    REQUEUED: "REQUEUED REQUEUE_FED REQUEUE_HOLD SPECIAL_EXIT",
    RUNNING: "RUNNING SUSPENDED SIGNALING RESIZING STAGE_OUT STOPPED",
    ENDING: "COMPLETING",
    FINISHED: "COMPLETED",
    CANCELLED: "CANCELLED REVOKED",
    FAILED: "FAILED TIMEOUT NODE_FAIL OUT_OF_MEMORY BOOT_FAIL DEADLINE PREEMPTED",
}
LIVE = (QUEUED, REQUEUED, RUNNING, ENDING)
OURS = {word: state for state, words in SLURM_STATES.items() for word in words.split()}


class SlurmBackend:
    """Slurm as a `hpc.jobs.backend.Backend`."""

    def environment(self, cluster: ClusterConfig, ambient: Mapping[str, str]) -> dict[str, str]:
        """SLURM_CONF of the cluster, or else this environment's."""
        slurm_conf = cluster.slurm_conf or ambient.get("SLURM_CONF")
        return {"SLURM_CONF": slurm_conf} if slurm_conf else {}

    def script(self, cluster: ClusterConfig, run: Run, digest: str) -> str:
        """The batch script."""
        return sbatch.script(cluster, run)

    def array_script(self, cluster: ClusterConfig, array: RunArray, digests: Sequence[str]) -> str:
        """The batch script of the array."""
        return sbatch.array_script(cluster, array)

    def check_size(self, cluster: ClusterConfig, variables: Mapping[str, str]) -> None:
        """Refuse what no node or partition can give; a Slurm that does not answer refuses none."""
        check_version(cluster, variables)
        limits.check_size(cluster, variables)

    def expected_start(self, script: str, variables: Mapping[str, str]) -> str | None:
        """The time that sbatch --test-only expects; None where Slurm expects none."""
        try:
            words = sbatch_test(script, variables) if controller_is_up(variables) else ""
        except SchedulerUnavailable:
            return None
        found = EXPECTED_START.search(words)
        return found[1] if found else None

    def require_ready(self, variables: Mapping[str, str], train_user: str) -> None:
        """Refuse root with `UsageError`; raise `SchedulerUnavailable` without a controller."""
        if os.getuid() == 0:
            raise UsageError(
                f"root does not train; {train_user} does. "
                "On the site in a box: scripts/site as train lockgate train ..."
            )
        require_controller(variables)

    def submit(
        self, cluster: ClusterConfig, run: Run, digest: str, variables: Mapping[str, str]
    ) -> JobFile:
        """Send the batch script with sbatch."""
        with _sending(variables):
            job = sbatch.executor(cluster, run).submit(entry.run, str(run.spec_path), digest)
        return _job_file(cluster, job.job_id, variables)

    def submit_array(
        self,
        cluster: ClusterConfig,
        array: RunArray,
        digests: Sequence[str],
        variables: Mapping[str, str],
    ) -> list[JobFile]:
        """Send all runs as the tasks of one array, with one sbatch."""
        array.link()
        paths = [str(run.spec_path) for run in array.runs]
        with _sending(variables):
            jobs = sbatch.array_executor(cluster, array).map_array(entry.run, paths, digests)
        return [_job_file(cluster, job.job_id, variables) for job in jobs]

    def withdraw(self, job_name: str, variables: Mapping[str, str]) -> None:
        """scancel by name: the job's id may not have arrived."""
        query(["scancel", f"--name={job_name}", f"--user={user_name()}"], variables)

    def cancel(self, record: RunRecord, timeout_s: float) -> None:
        """scancel, then record it. All of id, name and user must fit, so that a job which was
        given the id of a forgotten one is left alone."""
        command = ["scancel", f"--name={record.job_name}", f"--user={record.user}"]
        command += [record.job.job_id] if record.job else []
        query(command, _variables(record.slurm_conf))
        write_cancelled(record.run)

    def standings(self, records: Sequence[RunRecord]) -> dict[str, Standing]:
        """One query per cluster for all runs that have not finished by their own files.

        A failed one may be in the queue again: a person has requeued it.
        """
        jobs: dict[str, SlurmJob] = {}
        silent: dict[str, str | None] = {}
        unsettled = [one for one in records if _written(one) != FINISHED]
        for slurm_conf in {one.slurm_conf for one in unsettled}:
            group = [one for one in unsettled if one.slurm_conf == slurm_conf]
            wanted = [wanted_job(one, over=_written(one) == FAILED) for one in group]
            found, reason = find_jobs(wanted, _variables(slurm_conf))
            jobs |= found
            silent |= {one.run.name: reason for one in group}
        return {
            name: slurm_standing(record, jobs.get(name), silent.get(name))
            for record in records
            for name in [record.run.name]
        }


def slurm_standing(record: RunRecord, job: SlurmJob | None, silent: str | None) -> Standing:
    """The state of a Slurm run from its files, from its `job` if Slurm has it, and from `silent`,
    the reason why no part of Slurm answered. The job's own end is final, unless Slurm has it in
    its queue again."""
    status = record.status
    written = _written(record)
    if written == FINISHED:
        return Standing(FINISHED, "", "status.json")
    if written == FAILED and (job is None or OURS.get(job.state) not in LIVE):
        state = CANCELLED if record.cancelled else FAILED
        return Standing(state, record.failure_line, "failure.json")
    if job is not None:
        return _standing_of_job(status, job)
    if record.cancelled:
        return Standing(CANCELLED, "", "cancelled.json")
    last = f"last written: {written}" if written else "the job wrote nothing yet"
    if silent:
        return Standing(UNKNOWN, f"{silent} ({last})", "status.json")
    if record.job is None and not record.problems:
        detail = "the submit was interrupted; this folder can be removed"
        return Standing(NOT_SUBMITTED, detail, "job.json")
    return Standing(UNKNOWN, f"Slurm no longer knows the job ({last})", "status.json")


def _standing_of_job(status: StatusFile | None, job: SlurmJob) -> Standing:
    """The state of a run whose job is in Slurm and whose files have no end."""
    ours = OURS.get(job.state, UNKNOWN)
    detail, source = job.reason, job.source
    goes_on = _iso(job.start_s) if job.start_s > datetime.now(UTC).timestamp() else None
    if ours == UNKNOWN:
        detail = f"Slurm says {job.state}"
    elif ours == QUEUED and status is not None:
        ours = REQUEUED
        ended = status.error.line if status.error else ""
        detail = f"{ended} ({job.reason})" if ended and job.reason else ended or job.reason
    elif ours == FINISHED:
        ours = FAILED
        detail = "the job ended, but training never said that it finished"
    elif ours == FAILED and status is not None and _is_being_requeued(status):
        # The batch script ended with its code; Slurm shows that until the requeue is through.
        ours, source = REQUEUED, "status.json"
        detail = status.error.line if status.error else "saved, and asked Slurm to go on"
    elif ours == FAILED:
        detail = f"{job.state.lower().replace('_', ' ')} {job.reason}".strip()
    return Standing(ours, detail, source, job.job_id, goes_on)


def _is_being_requeued(status: StatusFile) -> bool:
    """True for an attempt that ended a short while ago and wants to go on."""
    try:
        ended = datetime.fromisoformat(status.ended or "")
        age_s = (datetime.now(UTC) - ended).total_seconds()
    except (ValueError, TypeError):  # not a time, or one without a zone
        return False
    return status.state == REQUEUED and age_s < REQUEUE_TAKES_S


def _job_file(cluster: ClusterConfig, job_id: str, variables: Mapping[str, str]) -> JobFile:
    return JobFile(
        kind=KIND,
        job_id=job_id,
        submitted=utc_now(),
        user=user_name(),
        ranks=cluster.ranks,
        slurm_conf=variables.get("SLURM_CONF"),
    )


def _written(record: RunRecord) -> str | None:
    """The state in the run's own files."""
    return record.status.state if record.status else None


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _variables(slurm_conf: str) -> dict[str, str]:
    return {"SLURM_CONF": slurm_conf} if slurm_conf else {}


@contextmanager
def _sending(variables: Mapping[str, str]) -> Iterator[None]:
    """Raise `SubmitRefused` for what sbatch refuses, and `ConfigError` for what submitit does."""
    try:
        # submitit prints sbatch's answer; the command has a sentence of its own.
        with _environment(variables), redirect_stderr(StringIO()):
            yield
    except (FailedJobError, FailedSubmissionError) as error:
        raise SubmitRefused(
            f"sbatch refused the job: {error_line(str(error))}. Nothing was submitted; the "
            "job's size and place are set by cluster.* (lockgate train --cfg job shows them)."
        ) from error
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"submitit refused the settings of the cluster: {error}") from error


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Exactly `variables` and nothing else: sbatch sends the job what it finds around itself."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
