"""The first cause of a bad end: chosen among what Slurm, srun and each rank left behind.

One dead rank makes its neighbours fail with a lost connection, and srun then kills all others.
Those errors are consequences, and are the answer only where nothing else is on record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from hpc.jobs.cause.evidence import (
    EXIT_CODES,
    LauncherLog,
    RankLog,
    SrunEnd,
    silent_ranks,
)
from hpc.jobs.cause.job_end import JobEnd, signal_name, worst_step
from hpc.jobs.run.files import UNFIT_NODE, RankFailure
from hpc.jobs.run.lost_neighbour import is_lost_neighbour

KILLED, LOST, HANG, NODE, MEMORY, LATE = "killed", "lost", "hang", "node", "memory", "late"
ERROR, LIMIT, OTHER = "error", "limit", "other"
"""Kinds of a cause: of the first line none is of the run's own making. LATE is a rank that was told
to stop and could not save in time, LIMIT a time limit without that."""
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
    watch: RankFailure | None = None
    """failure.json where the watch over a rank wrote it, of type Hang or Late, or the checks before
    training did: UnfitNode."""
    hang: str = ""
    """The sentence of the first rank that made no step for too long; empty for none."""
    rank0_node: str = ""
    limits: str = ""
    """The request in words, such as `cluster.mem_gb=2, cluster.timeout_min=60`."""
    detail: str = ""
    """The words of `lockgate ls` beside the run's state."""


@dataclass(frozen=True)
class Cause:
    """The first cause of a bad end."""

    kind: str
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
    """The first cause: a node's checks, Slurm's own end of the job, a hang, a rank killed by a
    signal, a rank's own error (the earliest), an exit code; and only then a lost connection, with
    the ranks that may be it."""
    found = (
        _of_checks(evidence)
        or _of_slurm(evidence)
        or _of_watch(evidence)
        or _of_signal(evidence)
        or _of_error(evidence)
        or _of_silence(evidence)
        or _of_code(evidence)
    )
    if found is None and silent_ranks(evidence.rank_logs):
        sentence = (
            f"Its ranks ended without a word: they were killed, by {KILLERS}, or with their node."
        )
        return Cause(KILLED, sentence, "See lockgate logs RUN.", "the ranks' logs")
    if found is None:
        known = f" but this: {evidence.detail}" if evidence.detail else ""
        sentence = f"Nothing is on record about its end{known}."
        return Cause(OTHER, sentence, "See lockgate logs RUN.", "the run's folder")
    return found


def _of_checks(evidence: Evidence) -> Cause | None:
    """A node that was not fit: nothing was trained yet, so no other cause can be before it."""
    failure = evidence.watch or evidence.failure
    if failure is None or failure.type != UNFIT_NODE:
        return None
    sentence = f"{failure.message[:1].upper()}{failure.message[1:]}."
    advice = "See lockgate doctor --nodes; cluster.exclude=NODE leaves one out from the start."
    node = _node_of(evidence, failure.rank) if failure.rank is not None else ""
    return Cause(NODE, sentence, advice, "failure.json", failure.rank, node)


def cause_before_stop(evidence: Evidence) -> Cause | None:
    """The first cause of an attempt whose rank 0 ended in order; None for none.

    srun ends the other ranks of a dead one by SIGTERM, and so rank 0 may have saved and stopped.
    """
    launcher = replace(evidence, rank_logs=(), ends=(), failure=None)
    return _of_slurm(launcher) or _of_signal(launcher)


def _of_slurm(evidence: Evidence) -> Cause | None:
    state, log = evidence.slurm_state, evidence.launcher
    after = _consequences(evidence, None)
    if state == "NODE_FAIL" or log.failed_node:
        node = log.failed_node
        where = f"Node {node}" if node else f"A node of {_nodes(evidence) or 'the job'}"
        advice = f"Leave it out (cluster.exclude={node or 'NODE'}) until it is mended."
        return Cause(NODE, f"{where} failed.", advice, "Slurm", node=node, consequences=after)
    if state == "OUT_OF_MEMORY" or log.out_of_memory:
        end = _first_end(log)
        who = f"Rank {end.ranks[0]} on {end.node}" if end and end.ranks else "A rank"
        return Cause(
            MEMORY,
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
            LIMIT,
            f"It ran into its time limit before it had saved ({evidence.limits}).",
            "Give it a longer cluster.timeout_min, or a larger cluster.signal_delay_s to save in.",
            "Slurm",
            consequences=after,
        )
    sentence = SLURM_ENDS.get(state)
    return Cause(OTHER, *sentence, "Slurm", consequences=after) if sentence else None


SLURM_ENDS = {
    "PREEMPTED": (
        "A job of a higher priority took its nodes.",
        "Submit it again, or in a partition or QOS that is not preempted.",
    ),
    "DEADLINE": ("It reached its deadline.", "Submit it again with a later one."),
    "BOOT_FAIL": ("Its nodes did not boot.", "Ask the cluster's administrator."),
}


def _of_watch(evidence: Evidence) -> Cause | None:
    """A hang, or a stop that came too late, as a rank recorded it."""
    watch = evidence.watch
    if watch is not None and watch.type == "Late":
        sentence = f"Rank {watch.rank} ended without saving: {watch.message}."
        advice = "Give it a larger cluster.signal_delay_s, or a shorter step."
        return Cause(LATE, sentence, advice, "failure.json", watch.rank)
    stuck = [log for log in evidence.rank_logs if log.hung_in]
    if not evidence.hang and watch is None and not stuck:
        return None
    what = evidence.hang or (watch.message if watch else "no step ended")
    without = silent_ranks(evidence.rank_logs)
    where = "; ".join(f"rank {log.rank} in {log.hung_in}" for log in stuck[:4])
    rank = without[0] if len(without) == 1 else None
    if without:
        named = ", ".join(map(str, without[:8])) + (", ..." if len(without) > 8 else "")
        gone = "left no stacks: stopped, or its node is gone"
        where = f"rank {named} {gone}" + (f"; {where}" if where else "")
    advice = "Its stacks are in lockgate logs RUN --rank N; a longer step needs hang_timeout_s."
    return Cause(HANG, f"It hung: {what}; {where}.", advice, "the watch over its ranks", rank)


def _of_signal(evidence: Evidence) -> Cause | None:
    """A rank that died of a signal before srun began to end the others."""
    end = _first_end(evidence.launcher)
    first = end is not None and not (end.after_kill and evidence.launcher.cancelled)
    # An abort is how libraries answer to the end of another rank, which may have an error.
    aborted = end is not None and end.signal == "SIGABRT" and bool(_own_errors(evidence))
    own = end is not None and (aborted or _own_error(evidence, end.ranks))
    if first and end and end.signal and end.ranks and not own:
        return _killed(evidence, end.ranks[0], end.node, end.signal, "srun")
    fatal = [log for log in evidence.rank_logs if log.signal]
    earliest = min((*fatal, *_own_errors(evidence)), key=_ended, default=None)
    if earliest is not None and earliest.signal:
        node = _node_of(evidence, earliest.rank)
        return _killed(evidence, earliest.rank, node, earliest.signal, "the rank's log")
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
    return Cause(KILLED, sentence, advice, source, rank, node, name, consequences=after)


def _of_error(evidence: Evidence) -> Cause | None:
    """The earliest error of a rank's own."""
    failure = evidence.failure
    if failure is not None:
        text = f"{failure.type}: {failure.message}"
        if not is_lost_neighbour(text):
            return _error(evidence, failure.rank, text, "failure.json")
    first = min(_own_errors(evidence), key=_ended, default=None)
    return _error(evidence, first.rank, first.error, "the rank's log") if first else None


def _error(evidence: Evidence, rank: int | None, text: str, source: str) -> Cause:
    node = _node_of(evidence, rank) if rank is not None else ""
    where = f" on {node}" if node else ""
    advice = f"See lockgate logs RUN --rank {rank or 0}."
    if "CUDA out of memory" in text or "OutOfMemoryError" in text:
        advice = f"Give it a smaller micro_batch_size or a higher zero_stage. {advice}"
    after = _consequences(evidence, rank)
    sentence = f"Rank {rank}{where} failed: {text}" if rank is not None else text
    return Cause(ERROR, sentence, advice, source, rank, node, "", evidence.exit_code, after)


def _of_silence(evidence: Evidence) -> Cause | None:
    """Ranks that ended without a word, where all that is on record are lost connections."""
    gone = list(evidence.launcher.gone)
    silent = gone or silent_ranks(evidence.rank_logs)
    if not silent or not (_only_lost(evidence) or gone):
        return None
    end = _first_end(evidence.launcher)
    if end and not end.after_kill and end.exit_code and set(end.ranks) & set(silent):
        where = f"Rank {end.ranks[0]} on {end.node}"
        advice = f"See lockgate logs RUN --rank {end.ranks[0]}."
        return Cause(
            OTHER, f"{where} ended itself with exit code {end.exit_code}.", advice, "srun",
            end.ranks[0], end.node, "", end.exit_code, _consequences(evidence, end.ranks[0]),
        )  # fmt: skip
    named = ", ".join(map(str, silent[:8])) + (", ..." if len(silent) > 8 else "")
    one = silent[0] if len(silent) == 1 else None
    who = f"Rank {one}" if one is not None else f"One of the ranks {named}"
    rank = silent[0]
    node = _node_of(evidence, one) if one is not None else ""
    where = f" on {node}" if node else ""
    after = _consequences(evidence, one)
    return Cause(
        KILLED,
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
        return Cause(
            LOST, sentence, advice, "failure.json", failure.rank, exit_code=evidence.exit_code
        )
    if log.cancelled or evidence.slurm_state == "CANCELLED":
        return Cause(OTHER, "It was cancelled.", "Submit it again to go on.", "Slurm")
    step, code = worst_step(evidence.ends), evidence.exit_code
    if code is None and step is not None and step.signal:
        name = signal_name(step.signal)
        return Cause(
            KILLED, f"A rank was ended by {name}.", "See lockgate logs RUN.", "sacct", signal=name
        )
    if code is None and (end := _first_end(log)) is not None and not end.signal:
        code = end.exit_code
    if code is None and step is not None:
        code = step.exit_code or None
    if code is None:
        return None
    words = f" ({EXIT_CODES[code]})" if code in EXIT_CODES else ""
    return Cause(
        OTHER, f"It ended with exit code {code}{words}.", "See lockgate logs RUN.", "exit code",
        exit_code=code,
    )  # fmt: skip


def _consequences(evidence: Evidence, rank: int | None) -> tuple[str, ...]:
    """The lost connections of other ranks, one line each, at most three."""
    errors = {log.rank: log.error for log in evidence.rank_logs if log.error}
    if evidence.failure:
        errors[evidence.failure.rank or 0] = f"{evidence.failure.type}: {evidence.failure.message}"
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


def _own_errors(evidence: Evidence) -> list[RankLog]:
    """The logs that end with an error of the rank's own, and not with a signal."""
    return [
        log
        for log in evidence.rank_logs
        if log.error and not log.signal and not is_lost_neighbour(log.error)
    ]


def _ended(log: RankLog) -> tuple[float, int]:
    return log.ended_s, log.rank


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
