"""The explanation of a run, whatever state it is in."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime
from typing import Any

from hpc.jobs.queue import run_state
from hpc.jobs.rank.exit_codes import TOO_OFTEN
from hpc.jobs.run.files import AttemptEndFile, CancelFile, RunRecord, read_record, read_run_file
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
    RunState,
)
from hpc.jobs.slurm.backend import KIND
from hpc.jobs.why.ended import Fault, attempt_ends, ending, kept
from hpc.jobs.why.explanation import Explanation
from hpc.jobs.why.wait import slurm_wait


def explanation_of(run: Run, fault: Fault, now: datetime) -> Explanation:
    """The wait or the bad end of `run`; for a running or finished one, a sentence.

    `fault` verifies a checkpoint: its fault in words, or None. Raises nothing of the scheduler's:
    a part that does not answer is among `unanswered`.
    """
    state, record = run_state(run), read_record(run)
    if state.state in (QUEUED, REQUEUED) and record.kind == KIND:
        return _waiting(record, state, fault, now)
    if state.state == FAILED:
        end, unanswered = ending(record, state, fault)
        cause = replace(end.cause, advice=typed(end.cause.advice, state))
        end = replace(end, cause=cause)
        last = read_run_file(AttemptEndFile, run.attempt_end(end.attempt)).value
        too_often = last is not None and last.exit_code == TOO_OFTEN
        answer = last.sentence if last and too_often else cause.sentence
        return _explanation(state, answer, run=run, ending=end, unanswered=unanswered)
    return _explanation(state, sentence(record, state), run=run)


def _waiting(record: RunRecord, state: RunState, fault: Fault, now: datetime) -> Explanation:
    safe = kept(record.run, fault) if state.state == REQUEUED else None
    waiting, unanswered = slurm_wait(record, state, bool(safe and safe.checkpoint_step), now)
    answer = waiting.reason.meaning
    if safe is not None:
        after = f"goes on after step {safe.checkpoint_step}" if safe.checkpoint_step else "begins"
        answer = f"Attempt {state.attempt + 1} {after} when it starts. {answer}"
    reason = replace(waiting.reason, advice=typed(waiting.reason.advice, state))
    waiting = replace(waiting, reason=reason)
    return _explanation(state, answer, run=record.run, waiting=waiting, unanswered=unanswered)


def typed(advice: str, state: RunState) -> str:
    """`advice` with the run's name for RUN and the job's id for ID, ready to be typed."""
    named = re.sub(r"\bRUN\b", state.run, advice)
    return re.sub(r"\bID\b", state.job_id, named) if state.job_id else named


def _explanation(state: RunState, answer: str, run: Run, **parts: Any) -> Explanation:
    attempts = attempt_ends(run, state.attempt)
    return Explanation(state.run, state.job_id, state.state, answer, attempts=attempts, **parts)


def sentence(record: RunRecord, state: RunState) -> str:
    """The one sentence on a run that neither waits in Slurm nor failed."""
    job = record.job.job_id if record.job else "its job"
    step = f"at step {state.step} of {state.steps}"
    node = f" on {record.status.node}" if record.status and record.status.node else ""
    cancel = read_run_file(CancelFile, record.run.cancelled).value
    by = f" by {cancel.by} at {cancel.at}" if cancel else ", by scancel or an administrator"
    early = f": {record.early_stop}" if record.early_stop else ""
    sentences = {
        RUNNING: f"It runs{node}: attempt {state.attempt or 1}, {step}.",
        ENDING: f"Its job ends now, {step}.",
        REQUEUED: f"It ended {step}, and starts again by itself.",
        QUEUED: f"It waits: {state.detail or 'no reason given'}.",
        FINISHED: f"It finished after {state.step} steps; nothing is wrong.",
        CANCELLED: f"It was cancelled{by}, {step}{early}.",
        STOPPED: f"Its processes were told to end (job {job}), and saved {step}.",
        NOT_SUBMITTED: f"It was never submitted: {state.detail}.",
    }
    unknown = f"Its state is not known: {state.detail}. See lockgate doctor."
    return sentences.get(state.state, unknown)
