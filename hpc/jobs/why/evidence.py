"""Last words of an attempt: how each rank's log ends, and srun's lines on ranks that ended."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hpc.jobs.rank.exit_codes import REFUSED, TERMINATED, TOO_OFTEN, TRAINING_FAILED

TRACEBACK = "Traceback (most recent call last):"
OURS = "lockgate: "
NO_ERROR = re.compile(
    r"lockgate: (?:attempt \d+ saved|packages changed|.* cannot be used; this job)"
)
"""Lines of `hpc.jobs.rank.entry` that report no error."""
# Of gloo, NCCL and the store through which ranks meet: another rank is gone, or does not answer.
LOST_NEIGHBOUR = re.compile(
    r"Dist(?:Network|Store)Error"
    r"|DistBackendError(?!.{0,2000}?(?:invalid usage|unhandled cuda error|invalid argument))"
    r"|gloo.{0,400}?(?:peer|Read error|Broken pipe|Connection re|[Tt]imed out|[Tt]imeout)"
    r"|(?:peer|Connection (?:closed|reset)).{0,400}?gloo"
    r"|Connection (?:closed|reset) by peer \["
    r"|Application timeout caused pair closure"
    r"|Timed out waiting \d+ms for (?:recv|send) operation"
    r"|ncclRemoteError|remote process exited|socketProgress|Connection closed by remote peer"
    r"|Watchdog caught collective operation timeout|NCCL communicator was aborted"
    r"|TCPStore|Did the remote server shutdown or crash|monitoredBarrier",
    re.DOTALL,
)
SRUN_TASK = re.compile(
    r"^srun: error: (?P<node>[\w.\[\],-]{1,200}): tasks? (?P<ranks>[\d,-]{1,200}): "
    r"(?P<end>.{1,200})$"
)
NODE_FAILURE = re.compile(r"^srun: error: Node failure on (?P<node>[\w.\[\],-]{1,200})")
# Where several slurmd share a machine, each writes its node's name: slurmstepd-n1.
KILLED_JOB = re.compile(
    r"^slurmstepd(?:-\S+)?: error: \*\*\* (JOB|STEP) .*CANCELLED AT .*?(?: DUE TO (.*?))? \*\*\*"
)
# The kernel's, of a cgroup; or Slurm's own, of JobAcctGatherParams=OverMemoryKill.
OOM_KILL = re.compile(
    r"^slurmstepd(?:-\S+)?: error: .*(?:oom-kill event|exceeded .*memory limit)", re.I
)
SIGNALS = {  # srun prints strsignal()
    "Killed": "SIGKILL",
    "Terminated": "SIGTERM",
    "Segmentation fault": "SIGSEGV",
    "Aborted": "SIGABRT",
    "Bus error": "SIGBUS",
    "Floating point exception": "SIGFPE",
    "Illegal instruction": "SIGILL",
    "Interrupt": "SIGINT",
    "Hangup": "SIGHUP",
    "Out Of Memory": "SIGKILL",
}
EXIT_CODES = {
    TRAINING_FAILED: "an error in training",
    REFUSED: "the spec, the code or the dataset is not what was frozen at submit",
    TOO_OFTEN: "stopped more often than cluster.max_requeues allows",
    TERMINATED: "saved after SIGTERM",
}


@dataclass(frozen=True)
class RankLog:
    """The end of one rank's log in one attempt."""

    rank: int
    error: str
    """`Type: message` of its last traceback, or Lockgate's sentence; empty without one."""
    ended_s: float
    """Time of its last line, in seconds since 1970."""
    orderly: bool = False
    """True where it ended as it should: saved and stopped."""


@dataclass(frozen=True)
class SrunEnd:
    """A line of srun on ranks of one node that ended badly."""

    node: str
    ranks: tuple[int, ...]
    signal: str
    """As in SIGKILL; empty for an exit code."""
    exit_code: int
    after_kill: bool
    """True for a line after srun began to end the other ranks."""


@dataclass(frozen=True)
class LauncherLog:
    """The lines of the launcher that tell how an attempt ended."""

    ends: tuple[SrunEnd, ...] = ()
    failed_node: str = ""
    cancelled: str = ""
    """Slurm's reason for a kill, as in TIME LIMIT; `yes` without one."""
    out_of_memory: bool = False


def is_lost_neighbour(error: str) -> bool:
    """True for a rank's error that only tells that another rank is gone."""
    return LOST_NEIGHBOUR.search(error) is not None


def last_error(tail: str) -> str:
    """The last error in the end of a rank's log: one line, or empty."""
    lines = tail.split("\n")
    for number in range(len(lines) - 1, -1, -1):
        line = lines[number]
        if line.startswith(OURS) and not NO_ERROR.match(line):
            return line.removeprefix(OURS).strip()
        if line.startswith(TRACEBACK):
            after = lines[number + 1 :]
            return next((one.strip() for one in after if one[:1].strip()), "")
    return ""


def ended_orderly(tail: str) -> bool:
    """True where the last words of a rank's log are that it saved and stopped."""
    said = [line for line in tail.split("\n") if line.startswith(OURS)]
    return bool(said) and "saved and stopped" in said[-1]


def parse_launcher(text: str) -> LauncherLog:
    """srun's and slurmstepd's lines of the last attempt in `text`, to which each one appends."""
    ends: list[SrunEnd] = []
    failed_node, cancelled, out_of_memory, killing = "", "", False, False
    for line in text.split("\n"):
        if kill := KILLED_JOB.match(line):
            if "REQUEUE" in (kill[2] or ""):  # the end of an attempt before
                ends, failed_node, cancelled, out_of_memory, killing = [], "", "", False, False
                continue
            # A step without a reason was ended by srun, after its first bad end.
            cancelled = kill[2] or cancelled or ("yes" if kill[1] == "JOB" else "")
            killing = True
        elif node := NODE_FAILURE.match(line):
            failed_node = node["node"]
        elif OOM_KILL.match(line):
            out_of_memory = True
        elif line.startswith("srun:") and "Terminating StepId" in line:
            killing = True
        elif task := SRUN_TASK.match(line):
            ends.append(_srun_end(task, killing))
    return LauncherLog(tuple(ends), failed_node, cancelled, out_of_memory)


def _srun_end(task: re.Match[str], killing: bool) -> SrunEnd:
    words = task["end"].removesuffix("(core dumped)").strip()
    code = re.fullmatch(r"Exited with exit code (\d{1,3})", words)
    name = "" if code else SIGNALS.get(words, words)
    return SrunEnd(
        task["node"], ranks_of(task["ranks"]), name, int(code[1]) if code else 0, killing
    )


def ranks_of(text: str) -> tuple[int, ...]:
    """The numbers of `0,2-3`, at most 1000 of them; of nothing else."""
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first.isdecimal() and (not last or last.isdecimal()):
            numbers += range(int(first), min(int(last or first), int(first) + 1000) + 1)
    return tuple(numbers[:1000])


def silent_ranks(logs: Sequence[RankLog]) -> list[int]:
    """Ranks whose log ends without an error and without an orderly end: they were killed."""
    return [log.rank for log in logs if not log.error and not log.orderly]
