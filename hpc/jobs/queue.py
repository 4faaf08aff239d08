"""Where runs stand: squeue, then scontrol, then sacct, then what the run's own folder says.

A scheduler that does not answer, or no longer knows a job, makes the state "unknown" and says so;
nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from hpc.jobs import status
from hpc.jobs.errors import SchedulerUnavailable, SpecMoved
from hpc.jobs.marker import read_marker
from hpc.jobs.process import is_running
from hpc.jobs.run import Run
from hpc.jobs.scheduler import ask, controller_is_up

QUEUED, RUNNING, REQUEUED, ENDING = "queued", "running", "requeued", "ending"
FINISHED, FAILED, CANCELLED, STOPPED = "finished", "failed", "cancelled", "stopped"
UNKNOWN, NOT_SUBMITTED = "unknown", "not submitted"
# A job that failed although it asked to go on was not requeued, once this long has passed.
REQUEUE_TAKES_S = 60.0
OVER = (FINISHED, FAILED, CANCELLED, STOPPED, NOT_SUBMITTED)

# Slurm's long state names; what is not listed is shown as unknown with Slurm's own word.
FROM_SLURM = {
    QUEUED: "PENDING CONFIGURING RESV_DEL_HOLD",
    REQUEUED: "REQUEUED REQUEUE_FED REQUEUE_HOLD SPECIAL_EXIT",
    RUNNING: "RUNNING SUSPENDED SIGNALING RESIZING STAGE_OUT STOPPED",
    ENDING: "COMPLETING",
    FINISHED: "COMPLETED",
    CANCELLED: "CANCELLED REVOKED",
    FAILED: "FAILED TIMEOUT NODE_FAIL OUT_OF_MEMORY BOOT_FAIL DEADLINE PREEMPTED",
}
OURS = {word: state for state, words in FROM_SLURM.items() for word in words.split()}


@dataclass(frozen=True)
class JobState:
    """What Slurm says of one job."""

    job_id: str
    name: str
    state: str  # Slurm's long name, as in RUNNING
    reason: str  # why it waits, or how it ended
    source: str  # squeue, scontrol or sacct


@dataclass(frozen=True)
class RunState:
    """Where a run stands. `source` says who said so."""

    run: str
    task: str
    state: str
    detail: str
    source: str
    job_id: str
    attempt: int
    step: int
    steps: int
    loss: float | None
    submitted: str | None
    started: str | None
    ended: str | None

    @property
    def over(self) -> bool:
        return self.state in OVER

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def run_states(runs: Sequence[Run]) -> list[RunState]:
    """The state of each run; asks Slurm once for all that may have changed."""
    markers = {run.name: read_marker(run.job) for run in runs}
    open_runs = [run for run in runs if not _has_ended(run)]
    jobs: dict[str, JobState] = {}
    silent: str | None = None
    for slurm_conf in {_slurm_conf(run, markers[run.name]) for run in open_runs} - {None}:
        wanted = {
            run.name: str(markers[run.name].get("job_id", ""))
            for run in open_runs
            if _slurm_conf(run, markers[run.name]) == slurm_conf
        }
        found, silent = slurm_states(wanted, {"SLURM_CONF": slurm_conf} if slurm_conf else {})
        jobs |= found
    return [_run_state(run, markers[run.name], jobs.get(run.name), silent) for run in runs]


def run_state(run: Run) -> RunState:
    """The state of one run."""
    return run_states([run])[0]


def slurm_states(
    wanted: Mapping[str, str], variables: Mapping[str, str]
) -> tuple[dict[str, JobState], str | None]:
    """What Slurm knows of the runs in `wanted` (run name -> job id, or "" when not known).

    Returns the jobs by run name, and a sentence when no part of Slurm answered, else None. A job
    counts only under the run's own name: job ids start again when a controller's state is lost.
    """
    found: dict[str, JobState] = {}
    silent: str | None = "the Slurm controller does not answer"
    answered = False
    asked: list[tuple[list[str], Callable[[str], list[JobState]]]] = [
        (["squeue", "--noheader", "--states=all", "--format=%i|%j|%T|%r"], parse_squeue),
        (["scontrol", "--oneliner", "show", "jobs"], parse_scontrol),
    ]
    for command, parse in asked if controller_is_up(variables) else []:
        try:
            known = {job.name: job for job in parse(ask(command, variables))}
        except SchedulerUnavailable as error:
            silent = str(error)
            continue
        found = {name: known[name] for name in wanted if name in known}
        answered = True
        break  # squeue has said all that scontrol would
    missing = [wanted[name] for name in wanted if name not in found and wanted[name]]
    if missing:
        try:
            known = {job.name: job for job in _from_sacct(missing, variables)}
            found |= {name: known[name] for name in wanted if name in known and name not in found}
            answered = True
        except SchedulerUnavailable as error:
            silent = f"{silent}; {error}"
    return found, None if answered else silent


def parse_squeue(text: str) -> list[JobState]:
    """Lines of `%i|%j|%T|%r`."""
    jobs = []
    for line in text.splitlines():
        job_id, name, state, reason = [*line.split("|", 3), "", "", ""][:4]
        if job_id and name:
            jobs.append(JobState(job_id, name, state, _plain(reason), "squeue"))
    return jobs


def parse_scontrol(text: str) -> list[JobState]:
    """Lines of `Key=Value Key=Value ...`."""
    jobs = []
    for line in text.splitlines():
        fields = dict(part.split("=", 1) for part in line.split() if "=" in part)
        if "JobId" in fields and "JobName" in fields:
            jobs.append(
                JobState(
                    fields["JobId"],
                    fields["JobName"],
                    fields.get("JobState", ""),
                    _plain(fields.get("Reason", "")),
                    "scontrol",
                )
            )
    return jobs


def parse_sacct(text: str) -> list[JobState]:
    """Lines of `JobID|JobName|State|ExitCode`; a state may be `CANCELLED by 1000`."""
    jobs = []
    for line in text.splitlines():
        job_id, name, state, code = [*line.split("|"), "", "", ""][:4]
        if job_id and name and "." not in job_id:
            detail = f"exit code {code.split(':')[0]}" if code not in ("", "0:0") else ""
            jobs.append(JobState(job_id, name, state.split()[0] if state else "", detail, "sacct"))
    return jobs


def _from_sacct(job_ids: Sequence[str], variables: Mapping[str, str]) -> list[JobState]:
    command = ["sacct", "--allocations", "--noheader", "--parsable2"]
    command += ["--format=JobID,JobName%128,State,ExitCode", f"--jobs={','.join(job_ids)}"]
    return parse_sacct(ask(command, variables))


def _run_state(
    run: Run, marker: Mapping[str, Any], job: JobState | None, silent: str | None
) -> RunState:
    written = status.read(run)
    metrics = status.last_metrics(run.metrics)
    if marker.get("kind") == "local":
        state, detail, source = _judge_local(run, marker, written)
    else:
        state, detail, source = judge(written, run.cancelled.exists(), job, silent, bool(marker))
    try:
        task, steps = run.spec.task, int(run.spec.config.steps)
    except SpecMoved as error:
        task, steps, detail = "?", 0, str(error)
    loss = metrics.get("loss")
    return RunState(
        run=run.name,
        task=task,
        state=state,
        detail=detail,
        source=source,
        job_id=str(marker.get("job_id") or (job.job_id if job else "")),
        attempt=int(written.get("attempt", 0)),
        step=int(metrics.get("step", 0)),
        steps=steps,
        loss=float(loss) if isinstance(loss, int | float) else None,
        submitted=marker.get("submitted"),
        started=written.get("started"),
        ended=written.get("ended"),
    )


def judge(
    written: Mapping[str, Any],
    cancelled: bool,
    job: JobState | None,
    silent: str | None,
    submitted: bool = True,
) -> tuple[str, str, str]:
    """(state, detail, source) of a Slurm run from what the job wrote and what Slurm says."""
    said = written.get("state")
    if said == FINISHED:
        return FINISHED, "", "status.json"
    if said == FAILED:
        return (CANCELLED if cancelled else FAILED), _error(written), "failure.json"
    if job is not None:
        ours = OURS.get(job.state, UNKNOWN)
        if ours == UNKNOWN:
            return UNKNOWN, f"Slurm says {job.state}", job.source
        if ours == QUEUED and said:
            return REQUEUED, job.reason, job.source
        if ours == FINISHED:
            return FAILED, "the job ended, but training never said that it finished", job.source
        if ours == FAILED and said == status.REQUEUED and _within(written, REQUEUE_TAKES_S):
            # The batch script ended with its code; Slurm shows that until the requeue is through.
            return REQUEUED, "saved, and asked Slurm to go on", "status.json"
        if ours == FAILED:
            return FAILED, f"{job.state.lower().replace('_', ' ')} {job.reason}".strip(), job.source
        return ours, job.reason, job.source
    if cancelled:
        return CANCELLED, "", "cancelled.json"
    last = f"last written: {said}" if said else "the job wrote nothing yet"
    if silent:
        return UNKNOWN, f"{silent} ({last})", "status.json"
    if not submitted:
        return NOT_SUBMITTED, "the submit was interrupted; this folder can be removed", "job.json"
    return UNKNOWN, f"Slurm no longer knows the job ({last})", "status.json"


def _judge_local(
    run: Run, marker: Mapping[str, Any], written: Mapping[str, Any]
) -> tuple[str, str, str]:
    said = written.get("state")
    alive = is_running(int(marker.get("job_id", 0)), marker.get("process_started"))
    cancelled = run.cancelled.exists()
    if said == FINISHED:
        return FINISHED, "", "status.json"
    if alive:
        return (said if said in (RUNNING, REQUEUED) else RUNNING), "", "process"
    if cancelled:
        return CANCELLED, "", "cancelled.json"
    if said == FAILED:
        return FAILED, _error(written), "failure.json"
    if said == STOPPED:
        return STOPPED, "its processes were told to end, and saved", "status.json"
    return FAILED, "its processes are gone; see the log", "process"


def _within(written: Mapping[str, Any], seconds: float) -> bool:
    """Whether the attempt ended less than `seconds` ago."""
    try:
        ended = datetime.fromisoformat(str(written.get("ended")))
    except ValueError:
        return False
    return (datetime.now(UTC) - ended).total_seconds() < seconds


def _has_ended(run: Run) -> bool:
    return status.read(run).get("state") in (FINISHED, FAILED)


def _slurm_conf(run: Run, marker: Mapping[str, Any]) -> str | None:
    """The SLURM_CONF to ask with ("" for the system's own); None for a local run."""
    if marker.get("kind") == "local":
        return None
    if marker:
        return marker.get("slurm_conf") or ""
    try:
        cluster = run.spec.config.cluster
    except SpecMoved:
        return None
    return (cluster.slurm_conf or "") if cluster.kind == "slurm" else None


def _error(written: Mapping[str, Any]) -> str:
    error = written.get("error") or {}
    first = str(error.get("message", "")).split("\n")[0]
    where = f" (rank {error['rank']})" if "rank" in error else ""
    return f"{error.get('type', 'failed')}: {first}{where}" if error else ""


def _plain(reason: str) -> str:
    return "" if reason in ("None", "(null)") else reason
