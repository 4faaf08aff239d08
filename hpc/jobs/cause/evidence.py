"""Last words of an attempt: how each rank's log ends, and srun's lines on ranks that ended."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hpc.jobs.rank.exit_codes import (
    HANG,
    LOST_RANK,
    REFUSED,
    TERMINATED,
    TOO_OFTEN,
    TRAINING_FAILED,
)

TRACEBACK = "Traceback (most recent call last):"
OURS = "lockgate: "
NO_ERROR = re.compile(
    r"lockgate: (?:attempt \d+ (?:saved|finished)|packages changed|.* cannot be used; this job)"
)
"""Lines of `hpc.jobs.rank.entry` that report no error."""
ORDERLY = r"lockgate: attempt \d+ (?:saved and stopped|finished)"
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
    TOO_OFTEN: "more attempts without a newer checkpoint than cluster.max_requeues allows",
    TERMINATED: "saved after SIGTERM",
    LOST_RANK: "another rank was gone",
    HANG: "no step for hang_timeout_s",
}
FATAL = re.compile(r"^Fatal Python error: (Segmentation fault|Aborted|Bus error|Illegal instruction"
                   r"|Floating point exception)", re.MULTILINE)  # fmt: skip
"""faulthandler's heading of a signal that ends a process."""
TIMEOUT = re.compile(r"^Timeout(?:: | \()", re.MULTILINE)
"""The heading of the stacks of a hang, of `hpc.jobs.rank.watchdog` or of faulthandler's timer."""
ATTEMPT = re.compile(r"^lockgate: attempt \d{1,6} starts$")
"""The line before the ranks of an attempt, of the batch script or the local launcher."""
GONE = re.compile(r"^lockgate: rank (\d{1,6}) is gone without a word$")
"""The local launcher's line on a rank that ended before it ended the others."""
STACK = re.compile(r"^(?:Current thread|Thread) 0x[0-9a-f]+.*\n((?:  File .*\n?)+)", re.MULTILINE)
"""The stack of one thread as faulthandler writes it, the newest call first."""
CALL = re.compile(r'^  File "(?P<file>.{1,500})", line (?P<line>\d+) in (?P<name>.{1,200})$', re.M)


@dataclass(frozen=True)
class RankLog:
    """The end of one rank's log in one attempt."""

    rank: int
    error: str
    """`Type: message` of its last traceback, or Lockgate's sentence; empty without one."""
    ended_s: float
    """Time of its last line, in seconds since 1970."""
    orderly: bool = False
    """True where it ended as it should: saved and stopped, or finished."""
    signal: str = ""
    """Signal that ended it, where the rank itself could still write it."""
    hung_in: str = ""
    """The newest call of its main thread when the attempt hung, as in `all_reduce (c10d.py:9)`."""


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
    gone: tuple[int, ...] = ()
    """Ranks that the local launcher saw end without a word."""


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
    """True where the last words of a rank's log are that it saved and stopped, or finished."""
    said = [line for line in tail.split("\n") if line.startswith(OURS)]
    return bool(said) and re.match(ORDERLY, said[-1]) is not None


def fatal_signal(tail: str) -> str:
    """The signal in faulthandler's last words, as in SIGSEGV; empty without them."""
    found = FATAL.findall(tail)
    return SIGNALS[found[-1]] if found else ""


def hung_in(tail: str) -> str:
    """The newest call of the main thread, which faulthandler writes last; empty without stacks."""
    heading = TIMEOUT.search(tail)
    stacks = STACK.findall(tail, heading.end()) if heading else []
    call = CALL.search(stacks[-1]) if stacks else None
    if call is None:
        return ""
    return f"{call['name']} ({call['file'].rpartition('/')[2]}:{call['line']})"


def parse_launcher(text: str) -> LauncherLog:
    """srun's and slurmstepd's lines of the last attempt in `text`, to which each one appends."""
    ends: list[SrunEnd] = []
    gone: list[int] = []
    failed_node, cancelled, out_of_memory, killing = "", "", False, False
    for line in text.split("\n"):
        if ATTEMPT.match(line):
            gone = []
            ends, failed_node, cancelled, out_of_memory, killing = [], "", "", False, False
        elif kill := KILLED_JOB.match(line):
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
        elif silent := GONE.match(line):
            gone.append(int(silent[1]))
        elif task := SRUN_TASK.match(line):
            ends.append(_srun_end(task, killing))
    return LauncherLog(tuple(ends), failed_node, cancelled, out_of_memory, tuple(gone))


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
    return [log.rank for log in logs if not (log.error or log.orderly or log.hung_in)]
