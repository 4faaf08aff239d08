"""The first cause of a bad end: chosen among what Slurm, srun and each rank left behind.

One dead rank makes its neighbours fail with a lost connection, and srun then kills all others.
Those errors are consequences, and are the answer only where nothing else is on record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hpc.jobs.run.files import RankFailure
from hpc.jobs.why.accounting import JobEnd, signal_name, worst_step
from hpc.jobs.why.evidence import (
    EXIT_CODES,
    LauncherLog,
    RankLog,
    SrunEnd,
    is_lost_neighbour,
    silent_ranks,
)

KILLERS = "the kernel's out-of-memory killer, a person or a health check"


@dataclass(frozen=True)
class Evidence:
    """Everything that is on record about how an attempt ended."""

    failure: RankFailure | None = None
    """failure.json of the attempt."""
    rank_logs: Sequence[RankLog] = ()
    launcher: LauncherLog = field(default_factory=LauncherLog)
    ends: Sequence[JobEnd] = ()
    """sacct's records of the job, of its newest start."""
    slurm_state: str = ""
    """Slurm's long word for the job's end, such as NODE_FAIL; empty for none."""
    exit_code: int | None = None
    """Code that the first rank left for the batch script."""
    rank0_node: str = ""
    limits: str = ""
    """The request in words, such as `cluster.mem_gb=2, cluster.timeout_min=60`."""
    detail: str = ""
    """The words of `lockgate ls` beside the run's state."""


@dataclass(frozen=True)
class Cause:
    """The first cause of a bad end."""

    sentence: str
    advice: str
    source: str
    """The file or program that it was read from."""
    rank: int | None = None
    node: str = ""
    signal: str = ""
    """As in SIGKILL."""
    exit_code: int | None = None
    consequences: tuple[str, ...] = ()
    """Errors of other ranks that followed from it."""


def first_cause(evidence: Evidence) -> Cause:
    """The first cause: Slurm's own end of the job, a rank killed by a signal, a rank's own error
    (the earliest), an exit code; and only then a lost connection, with the ranks that may be it."""
    found = (
        _of_slurm(evidence)
        or _of_signal(evidence)
        or _of_error(evidence)
        or _of_silence(evidence)
        or _of_code(evidence)
    )
    if found is None and silent_ranks(evidence.rank_logs):
        sentence = (
            f"Its ranks ended without a word: they were killed, by {KILLERS}, or with their node."
        )
        return Cause(sentence, "See lockgate logs RUN.", "the ranks' logs")
    if found is None:
        known = f" but this: {evidence.detail}" if evidence.detail else ""
        sentence = f"Nothing is on record about its end{known}."
        return Cause(sentence, "See lockgate logs RUN.", "the run's folder")
    return found


def _of_slurm(evidence: Evidence) -> Cause | None:
    state, log = evidence.slurm_state, evidence.launcher
    after = _consequences(evidence, None)
    if state == "NODE_FAIL" or log.failed_node:
        node = log.failed_node
        where = f"Node {node}" if node else f"A node of {_nodes(evidence) or 'the job'}"
        advice = f"Leave it out (cluster.exclude={node or 'NODE'}) until it is mended."
        return Cause(f"{where} failed.", advice, "Slurm", node=node, consequences=after)
    if state == "OUT_OF_MEMORY" or log.out_of_memory:
        end = _first_end(log)
        who = f"Rank {end.ranks[0]} on {end.node}" if end and end.ranks else "A rank"
        return Cause(
            f"{who} was killed: it used more memory than the job asked for ({evidence.limits}).",
            "Give it more cluster.mem_gb, or a smaller micro_batch_size.",
            "Slurm",
            rank=end.ranks[0] if end and end.ranks else None,
            node=end.node if end else "",
            signal="SIGKILL",
            consequences=after,
        )
    if state == "TIMEOUT" or log.cancelled == "TIME LIMIT":
        return Cause(
            f"It ran into its time limit before it had saved ({evidence.limits}).",
            "Give it a longer cluster.timeout_min, or a larger cluster.signal_delay_s to save in.",
            "Slurm",
            consequences=after,
        )
    sentence = SLURM_ENDS.get(state)
    return Cause(*sentence, "Slurm", consequences=after) if sentence else None


SLURM_ENDS = {
    "PREEMPTED": (
        "A job of a higher priority took its nodes.",
        "Submit it again, or in a partition or QOS that is not preempted.",
    ),
    "DEADLINE": ("It reached its deadline.", "Submit it again with a later one."),
    "BOOT_FAIL": ("Its nodes did not boot.", "Ask the cluster's administrator."),
}


def _of_signal(evidence: Evidence) -> Cause | None:
    """A rank that died of a signal before srun began to end the others."""
    end = _first_end(evidence.launcher)
    first = end is not None and not (end.after_kill and evidence.launcher.cancelled)
    if first and end and end.signal and end.ranks and not _own_error(evidence, end.ranks):
        return _killed(evidence, end.ranks[0], end.node, end.signal, "srun")
    step = worst_step(evidence.ends)
    silent = silent_ranks(evidence.rank_logs)
    if step and step.signal and len(silent) == 1 and _only_lost(evidence):
        return _killed(evidence, silent[0], "", signal_name(step.signal), "sacct")
    return None


def _killed(evidence: Evidence, rank: int, node: str, name: str, source: str) -> Cause:
    where = f" on {node}" if node else ""
    by = f" (sent by {KILLERS})" if name == "SIGKILL" else ""
    advice = (
        "See dmesg or the administrator for the node; if it was memory: more cluster.mem_gb."
        if name == "SIGKILL"
        else f"See lockgate logs RUN --rank {rank}."
    )
    after = _consequences(evidence, rank)
    sentence = f"Rank {rank}{where} was ended by {name}{by}."
    return Cause(sentence, advice, source, rank, node, name, consequences=after)


def _of_error(evidence: Evidence) -> Cause | None:
    """The earliest error of a rank's own."""
    failure = evidence.failure
    if failure is not None:
        text = f"{failure.type}: {failure.message}"
        if not is_lost_neighbour(text):
            return _error(evidence, failure.rank, text, "failure.json")
    own = [log for log in evidence.rank_logs if log.error and not is_lost_neighbour(log.error)]
    first = min(own, key=lambda log: (log.ended_s, log.rank), default=None)
    return _error(evidence, first.rank, first.error, "the rank's log") if first else None


def _error(evidence: Evidence, rank: int, text: str, source: str) -> Cause:
    node = _node_of(evidence, rank)
    where = f" on {node}" if node else ""
    advice = f"See lockgate logs RUN --rank {rank}."
    if "CUDA out of memory" in text or "OutOfMemoryError" in text:
        advice = f"Give it a smaller micro_batch_size or a higher zero_stage. {advice}"
    after = _consequences(evidence, rank)
    sentence = f"Rank {rank}{where} failed: {text}"
    return Cause(sentence, advice, source, rank, node, "", evidence.exit_code, after)


def _of_silence(evidence: Evidence) -> Cause | None:
    """Ranks that ended without a word, where all that is on record are lost connections."""
    silent = silent_ranks(evidence.rank_logs)
    if not silent or not _only_lost(evidence):
        return None
    named = ", ".join(map(str, silent[:8])) + (", ..." if len(silent) > 8 else "")
    one = silent[0] if len(silent) == 1 else None
    who = f"Rank {one}" if one is not None else f"One of the ranks {named}"
    rank = silent[0]
    node = _node_of(evidence, one) if one is not None else ""
    where = f" on {node}" if node else ""
    after = _consequences(evidence, one)
    return Cause(
        f"{who}{where} ended without a word: it was killed, by {KILLERS}.",
        f"See lockgate logs RUN --rank {rank}, and dmesg on its node.",
        "the ranks' logs",
        rank=one,
        node=node,
        consequences=after,
    )


def _of_code(evidence: Evidence) -> Cause | None:
    """An exit code, or the lost connection itself, when nothing else is on record."""
    failure, log = evidence.failure, evidence.launcher
    if failure is not None:
        text = f"Rank {failure.rank} lost another rank, which left nothing on record: "
        advice = "See lockgate logs RUN; a network or a node may have failed."
        sentence = f"{text}{failure.type}: {_line(failure.message)}"
        return Cause(sentence, advice, "failure.json", failure.rank, exit_code=evidence.exit_code)
    if log.cancelled or evidence.slurm_state == "CANCELLED":
        return Cause("It was cancelled.", "Submit it again to go on.", "Slurm")
    step, code = worst_step(evidence.ends), evidence.exit_code
    if code is None and step is not None and step.signal:
        name = signal_name(step.signal)
        return Cause(f"A rank was ended by {name}.", "See lockgate logs RUN.", "sacct", signal=name)
    if code is None and (end := _first_end(log)) is not None and not end.signal:
        code = end.exit_code
    if code is None and step is not None:
        code = step.exit_code or None
    if code is None:
        return None
    words = f" ({EXIT_CODES[code]})" if code in EXIT_CODES else ""
    return Cause(
        f"It ended with exit code {code}{words}.", "See lockgate logs RUN.", "exit code",
        exit_code=code,
    )  # fmt: skip


def _consequences(evidence: Evidence, rank: int | None) -> tuple[str, ...]:
    """The lost connections of other ranks, one line each, at most three."""
    errors = {log.rank: log.error for log in evidence.rank_logs if log.error}
    if evidence.failure:
        errors[evidence.failure.rank] = f"{evidence.failure.type}: {evidence.failure.message}"
    lost = [
        f"rank {one}: {_line(text)}"
        for one, text in sorted(errors.items())
        if one != rank and is_lost_neighbour(text)
    ]  # fmt: skip
    return tuple(lost[:3])


def _only_lost(evidence: Evidence) -> bool:
    """True where every error of a rank is a lost connection, and there is one at least."""
    errors = [log.error for log in evidence.rank_logs if log.error]
    if evidence.failure:
        errors.append(f"{evidence.failure.type}: {evidence.failure.message}")
    return bool(errors) and all(map(is_lost_neighbour, errors))


def _own_error(evidence: Evidence, ranks: Sequence[int]) -> bool:
    """True where one of `ranks` wrote an error of its own before a signal ended it."""
    return any(
        log.rank in ranks and log.error and not is_lost_neighbour(log.error)
        for log in evidence.rank_logs
    )


def _first_end(log: LauncherLog) -> SrunEnd | None:
    """srun's first line on a rank, of those before it ended the others if there are any."""
    return min(log.ends, key=lambda end: end.after_kill, default=None)


def _node_of(evidence: Evidence, rank: int) -> str:
    for end in evidence.launcher.ends:
        if rank in end.ranks and "[" not in end.node and "," not in end.node:
            return end.node
    return evidence.rank0_node if rank == 0 else ""


def _nodes(evidence: Evidence) -> str:
    return next((end.nodes for end in reversed(evidence.ends) if end.nodes), "")


def _line(text: str) -> str:
    return text.partition("\n")[0][:200]
