r"""Jobs in Slurm's own records: squeue, then scontrol, then sacct.

Any user may give a job any name: that of a run, one with `|` or ` JobState=COMPLETED` in it, or
with line ends that look like other jobs' records. So squeue answers in JSON (Slurm 21.08 and later,
https://slurm.schedmd.com/squeue.html#OPT_json), scontrol, which has none in 22.05, about one job at
a time, and sacct about the run's own user only, the name last: its JSON in 22.05 has neither the
exit code nor, for a requeued job, one record. A job is a run's by id, user and name; the tasks of
an array have one name, and ids such as 12_3.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpc.jobs.errors import SchedulerUnavailable
from hpc.jobs.run.files import RunRecord
from hpc.jobs.slurm.arrays import job_ids, record_ids, task_numbers
from hpc.jobs.slurm.commands import controller_is_up, query
from hpc.jobs.slurm.recent import recent_answer

SQUEUE = ("squeue", "--all", "--json")
# What scontrol answers about a job that the controller has forgotten, or never had.
NO_SUCH_JOB = "Invalid job id"
SCONTROL_LINE = re.compile(
    r"JobId=(?P<id>\d+) (?:ArrayJobId=(?P<array>\d+) ArrayTaskId=(?P<tasks>\S+) "
    r"(?:ArrayTaskThrottle=\d+ )?)?JobName=(?P<name>.*)"
    r" UserId=(?P<user>[^\s()]+)\(\d+\) .*\bJobState=(?P<state>\w+) Reason=(?P<reason>\S*).*"
)


@dataclass(frozen=True)
class SlurmJob:
    """One job in Slurm's own words."""

    job_id: str
    name: str
    user: str
    state: str
    """Slurm's long name, as in RUNNING."""
    reason: str
    """Why it waits, or how it ended; may be empty."""
    source: str
    """squeue, scontrol or sacct."""
    partition: str = ""
    """Only from squeue; a pending job may name several, with commas."""
    node: str = ""
    """First node of a running job, on which rank 0 runs; only from squeue."""
    start_s: int = 0
    """Start of a pending job that Slurm has planned, or before which it may not start, in seconds
    since 1970; 0 for none. Only from squeue."""


@dataclass(frozen=True)
class WantedJob:
    """The job of a run: its name is the run's name, or that of the array that it is a task of."""

    name: str
    user: str
    job_id: str
    """Empty when the submit was interrupted before the id was written."""
    run: str = ""
    """The run's name, where the job's is another."""
    task: int | None = None
    """Its number in the array."""
    over: bool = False
    """True for a run that failed by its own files: only a queue that has it again matters."""

    @property
    def key(self) -> str:
        """The run's name."""
        return self.run or self.name

    def matches(self, job: SlurmJob) -> bool:
        """True for this run's job: ids are given out again when a controller's state is lost."""
        if self.job_id or self.task is None:
            same_id = self.job_id in ("", job.job_id)
        else:
            same_id = job.job_id.endswith(f"_{self.task}")
        return same_id and (job.name, job.user) == (self.name, self.user) and self.user != ""


def wanted_job(record: RunRecord, over: bool = False) -> WantedJob:
    """The job that a run's files name."""
    job_id = record.job.job_id if record.job else ""
    if record.trial is None or record.trial.array is None:
        return WantedJob(record.run.name, record.user, job_id, over=over)
    name, task = record.trial.array, record.trial.task
    return WantedJob(name, record.user, job_id, record.run.name, task, over)


def find_jobs(
    wanted: Sequence[WantedJob], variables: Mapping[str, str]
) -> tuple[dict[str, SlurmJob], str | None]:
    """Jobs by run name, and the reason in a sentence when no part of Slurm answered, else None.

    `variables` are the environment that names the cluster. Raises nothing of Slurm's own.
    """
    found: dict[str, SlurmJob] = {}
    silent: list[str] = []
    answered = False
    if recent_answer(("scontrol", "ping"), variables, _ping):
        for source in (_from_squeue, _from_scontrol):
            try:
                found = _matching(wanted, source(wanted, variables))
            except (SchedulerUnavailable, ValueError) as error:
                silent.append(str(error))
                continue
            answered = True
            break  # scontrol has nothing that squeue has not
    else:
        silent.append("the Slurm controller does not answer")
    missing = [one for one in wanted if one.key not in found and one.job_id and not one.over]
    if missing:
        try:
            found |= _matching(missing, _from_sacct(missing, variables))
            answered = True
        except SchedulerUnavailable as error:
            silent.append(str(error))
    return found, None if answered else "; ".join(silent)


def parse_squeue(text: str) -> list[SlurmJob]:
    """The jobs of `squeue --json`, in every state; a record without id, name or state is left out.

    Of an array each task is a job, the pending ones too.

    Raises ValueError when the text is not such a document, or lists errors: a squeue whose
    controller is down ends with 0, an error and no jobs.
    """
    try:
        document = json.loads(text, strict=False)
    except RecursionError:
        raise ValueError("squeue --json printed what is nested too deep") from None
    if not isinstance(document, dict) or not isinstance(document.get("jobs"), list):
        raise ValueError("squeue --json printed no list of jobs")
    if document.get("errors"):
        raise ValueError(f"squeue --json: {json.dumps(document['errors'])}")
    return [job for record in document["jobs"] for job in _squeue_jobs(record)]


def parse_scontrol(text: str) -> list[SlurmJob]:
    """The job of `scontrol --oneliner show job ID`, if the text is one line that is unambiguous.

    Of an array each task of the line is a job.
    A name that holds a line end, or a later key of the line, hides which part Slurm wrote.
    """
    lines = [line for line in text.split("\n") if line.strip()]
    match = SCONTROL_LINE.fullmatch(lines[0]) if len(lines) == 1 else None
    if match is None or any(lines[0].count(f"{key}=") != 1 for key in ("UserId", "JobState")):
        return []
    reason = _plain(match["reason"])
    tasks = [f"{match['array']}_{number}" for number in task_numbers(match["tasks"] or "")]
    return [
        SlurmJob(one, match["name"], match["user"], match["state"], reason, "scontrol")
        for one in tasks or [match["id"]]
    ]


def parse_sacct(text: str) -> list[SlurmJob]:
    """Lines of `JobID|User|State|ExitCode|JobName`; a state may be `CANCELLED by 1000`."""
    jobs = []
    for line in text.split("\n"):
        job_id, user, state, code, name = [*line.split("|", 4), "", "", "", ""][:5]
        ids = job_ids(job_id) if state.strip() else []  # a step has an id such as 12.batch
        detail = f"exit code {code.split(':')[0]}" if code not in ("", "0:0") else ""
        jobs += [SlurmJob(one, name, user, state.split()[0], detail, "sacct") for one in ids]
    return jobs


def _matching(wanted: Iterable[WantedJob], jobs: Iterable[SlurmJob]) -> dict[str, SlurmJob]:
    by_name: dict[str, list[SlurmJob]] = {}
    for job in jobs:
        by_name.setdefault(job.name, []).append(job)
    return {one.key: job for one in wanted for job in by_name.get(one.name, ()) if one.matches(job)}


def _ping(_: Sequence[str], variables: Mapping[str, str]) -> str:
    """Empty for a controller that does not answer."""
    return "up" if controller_is_up(variables) else ""


def _from_squeue(_: Sequence[WantedJob], variables: Mapping[str, str]) -> list[SlurmJob]:
    return parse_squeue(recent_answer(SQUEUE, variables, query))


def _from_scontrol(wanted: Sequence[WantedJob], variables: Mapping[str, str]) -> list[SlurmJob]:
    jobs: list[SlurmJob] = []
    for job_id in [one.job_id for one in wanted if one.job_id and not one.over]:
        try:
            text = query(["scontrol", "--oneliner", "show", "job", job_id], variables)
        except SchedulerUnavailable as error:
            if NO_SUCH_JOB in str(error):
                continue
            raise
        jobs += [job for job in parse_scontrol(text) if job.job_id == job_id]
    return jobs


def _from_sacct(wanted: Sequence[WantedJob], variables: Mapping[str, str]) -> list[SlurmJob]:
    jobs: list[SlurmJob] = []
    for user in sorted({one.user for one in wanted} - {""}):
        ids = ",".join(one.job_id for one in wanted if one.user == user)
        command = ["sacct", "--allocations", "--noheader", "--parsable2", f"--user={user}"]
        command += [f"--jobs={ids}", "--format=JobID,User,State,ExitCode,JobName%256"]
        jobs += parse_sacct(recent_answer(command, variables, query))
    return jobs


def _squeue_jobs(record: Any) -> list[SlurmJob]:
    if not isinstance(record, dict):
        return []
    job_id, name, state = (record.get(key) for key in ("job_id", "name", "job_state"))
    if isinstance(state, list) and state:  # Slurm 23.11: the state, then flags such as COMPLETING
        state = state[-1]
    if type(job_id) is not int or not isinstance(name, str) or not isinstance(state, str):
        return []
    user, reason, partition, node = (
        str(record.get(key) or "")
        for key in ("user_name", "state_reason", "partition", "batch_host")
    )
    start_s = max(_seconds(record.get(key)) for key in ("start_time", "eligible_time"))
    start_s = start_s if state == "PENDING" else 0
    return [
        SlurmJob(one, name, user, state, _plain(reason), "squeue", partition, node, start_s)
        for one in record_ids(record)
    ]


def _seconds(value: Any) -> int:
    """A time; Slurm 23.02 wraps it as {"set": true, "infinite": false, "number": 3}."""
    if isinstance(value, dict):
        value = value.get("number") if value.get("set") and not value.get("infinite") else 0
    return value if type(value) is int and 0 < value < 1 << 40 else 0


def _plain(reason: str) -> str:
    return "" if reason in ("None", "(null)") else reason
