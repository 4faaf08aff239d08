"""Spans of a run's life, as far as its folder holds their two ends. Pure.

A span with an unknown end is left out: there is then a hole in the time line, and no guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpc.jobs.run.timeline import RunTimeline, moment
from hpc.report.logged_metrics import LoggedLine

QUEUED, STARTING, TRAINING, REQUEUED = "queued", "starting", "training", "requeued"
EVALUATION, EXPORT, STALLED = "evaluation", "export", "stalled"
KINDS = (QUEUED, STARTING, TRAINING, EVALUATION, STALLED, REQUEUED, EXPORT)
WITHIN_TRAINING = (EVALUATION, STALLED)
SLACK_S = 2.0
"""Between a time written to the second and one that is exact."""


@dataclass(frozen=True)
class AttemptTrace:
    """One attempt as its files show it; times are seconds since 1970."""

    number: int
    resumed_step: int
    """Steps behind it when it began; 0 for a start from the beginning."""
    began: float | None
    ended: float | None


@dataclass(frozen=True)
class TimeSpan:
    """One stretch of a run's life."""

    kind: str
    begin: float
    end: float
    label: str

    @property
    def seconds(self) -> float:
        return self.end - self.begin


@dataclass(frozen=True)
class RunTimes:
    """The moments of a run that stand in its folder, in seconds since 1970."""

    submitted: float | None
    ended: float | None
    candidate: float | None
    """The candidate was written then."""
    attempts: tuple[AttemptTrace, ...]


def run_times(line: RunTimeline) -> RunTimes:
    """The moments of a time line; the end is that of its newest attempt."""
    attempts = tuple(
        AttemptTrace(one.number, one.resumed_step, moment(one.started), moment(one.ended))
        for one in line.attempts
    )
    ended = attempts[-1].ended if attempts else None
    return RunTimes(moment(line.submitted), ended, moment(line.candidate), attempts)


def run_spans(times: RunTimes, lines: Sequence[LoggedLine], steps: int) -> list[TimeSpan]:
    """The spans of a run, in order of their beginnings; `steps` are those of the whole run."""
    found: list[TimeSpan | None] = []
    before = times.submitted
    for attempt in times.attempts:
        own = attempt_lines(attempt, times.attempts, lines)
        trained = _training(own, attempt, before)
        first_step = trained.begin if trained else None
        ready = attempt.began if attempt.began is not None else first_step
        if attempt.number == 1:
            found.append(_span(QUEUED, before, attempt.began, "queued"))
        else:
            also = "" if attempt.began is not None else " and starting"
            found.append(_span(REQUEUED, before, ready, f"requeued{also}"))
        found.append(
            _span(STARTING, attempt.began, first_step, f"start of attempt {attempt.number}")
        )
        found.append(trained)
        within = [one for one in own if attempt.ended is None or one.at <= attempt.ended + SLACK_S]
        found += [_evaluation(within, place) for place in range(1, len(within))]
        found += [_stall(line) for line in within]
        before = attempt.ended
    final = [line.at for line in lines if line.evaluation and line.step >= steps > 0]
    if final:
        found.append(_span(EXPORT, final[-1], times.candidate, "export of the candidate"))
    return sorted((one for one in found if one), key=lambda one: (one.begin, one.end))


def attempt_lines(
    attempt: AttemptTrace, attempts: Sequence[AttemptTrace], lines: Sequence[LoggedLine]
) -> list[LoggedLine]:
    """The lines that `attempt` logged: an attempt drops those of later steps than it resumes at."""
    later = [one for one in attempts if one.number > attempt.number]
    until = min((one.resumed_step for one in later), default=float("inf"))
    return [line for line in lines if attempt.resumed_step < line.step <= until]


def _training(
    lines: Sequence[LoggedLine], attempt: AttemptTrace, before: float | None
) -> TimeSpan | None:
    """From the first step, which its seconds give, to the last logged one."""
    steps = [line for line in lines if line.step_seconds is not None]
    if not steps:
        return None
    count = steps[0].step - attempt.resumed_step
    begin = steps[0].at - (steps[0].step_seconds or 0.0) * count
    earliest = attempt.began if attempt.began is not None else before
    begin = max(begin, earliest) if earliest is not None else begin
    if begin <= 0:  # no step takes that long
        return None
    label = f"steps {attempt.resumed_step + 1:,} to {steps[-1].step:,.0f}"
    return _span(TRAINING, begin, steps[-1].at, label)


def _evaluation(lines: Sequence[LoggedLine], place: int) -> TimeSpan | None:
    """The evaluation that ends with line `place`, if the line before it is of the same step."""
    line, last = lines[place], lines[place - 1]
    if not line.evaluation or last.step != line.step or last.evaluation:
        return None
    return _span(EVALUATION, last.at, line.at, f"evaluation after step {line.step:,.0f}")


def _stall(line: LoggedLine) -> TimeSpan | None:
    """The time for which a checkpoint held up the steps before `line`."""
    if not line.stall_seconds or not 0 < line.stall_seconds < line.at:
        return None
    label = f"the checkpoint of step {line.step:,.0f} held up the steps"
    return _span(STALLED, line.at - line.stall_seconds, line.at, label)


def _span(kind: str, begin: float | None, end: float | None, label: str) -> TimeSpan | None:
    if begin is None or end is None or end < begin - SLACK_S:
        return None
    return TimeSpan(kind, begin, max(begin, end), label)
