"""Sentences about runs: how they ended, and what they asked for and did not use. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from conf.page import duration
from hpc.jobs.run.states import CANCELLED, FAILED, FINISHED, STOPPED
from hpc.report.comparison import ranking_metric
from hpc.report.logged_metrics import finite
from hpc.report.reported_run import ReportedRun
from hpc.report.step_split import step_split
from hpc.report.tables import found_end
from hpc.report.text import number_text, plural
from hpc.report.timeline import run_spans

MEMORY_MARGIN = 1.3
LEAST_SHARE = 0.1
"""A smaller share of the time is not worth a note."""
DATA = ("data_wait", "data")
"""The part of a step in which it waits for its batch, as a run names it."""
HAS_ENDED_BADLY = (FAILED, CANCELLED, STOPPED)


def title_sentence(runs: Sequence[ReportedRun]) -> str:
    """The end of one run or of several, a sentence without its stop."""
    if len(runs) == 1:
        return _one_title(runs[0])
    counts = Counter(run.state.state for run in runs)
    states = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    metric = ranking_metric(runs)
    ranked = metric.ranked(runs) if metric else []
    if metric is None or not ranked:
        return f"{len(runs)} runs: {states}"
    best = number_text(metric.value(ranked[0]))
    return f"{len(runs)} runs: {states}; the best {metric.name} is {best}, of {ranked[0].name}"


def waste_notes(run: ReportedRun, memory_bytes: int | None) -> list[str]:
    """Memory and time that were asked for and not used, or lost, a sentence each.

    `memory_bytes` is the most that a rank used by Slurm's accounting; without it, the run's own.
    """
    parts = (_memory_note(run, memory_bytes), _time_limit_note(run), *_step_notes(run))
    return [note for note in parts if note]


def _memory_note(run: ReportedRun, memory_bytes: float | None) -> str:
    asked, ranks = _positive(run, "cluster.mem_gb"), _positive(run, "cluster.tasks_per_node")
    whose = "" if memory_bytes else " (the peak of rank 0, for each rank)"
    used = memory_bytes or run.metrics.greatest("peak_rss_bytes")
    if not (used and asked and ranks):
        return ""
    most = float(f"{used * ranks / 2**30:.2g}")
    enough = math.ceil(most * MEMORY_MARGIN)
    advice = f"; ask for cluster.mem_gb={enough}" if enough <= asked / 2 else ""
    return (
        f"memory: asked {number_text(asked)} GB of each node, used at most "
        f"{number_text(most)} GB{whose}{advice}"
    )


def _time_limit_note(run: ReportedRun) -> str:
    limit = _positive(run, "cluster.timeout_min")
    spans = [(one.began, one.ended) for one in run.times.attempts]
    known = [end - begin for begin, end in spans if begin is not None and end is not None]
    if not limit or not known or len(known) != len(spans):
        return ""
    return (
        f"time limit: asked {duration(60 * limit)} for each attempt, "
        f"the longest took {duration(max(known))}"
    )


def _step_notes(run: ReportedRun) -> Iterator[str]:
    """Shares of the steps' time that the GPUs or CPUs had nothing to do."""
    split = step_split(run.metrics)
    waited = next((split.shares[name] for name in DATA if name in split.shares), 0) if split else 0
    if waited > LEAST_SHARE:
        yield (
            f"data: {waited:.0%} of a step is the wait for its batches; more of them can be loaded "
            "ahead, or the dataset prepared further"
        )
    lines = run.metrics.lines
    stalled = sum(line.stall_seconds or 0.0 for line in lines)
    trained = lines[-1].at - lines[0].at if lines else 0.0
    if stalled > LEAST_SHARE * trained > 0:
        yield (
            f"checkpoints: they held up the steps for {duration(stalled)} of {duration(trained)}; "
            "a larger checkpoint_interval loses less"
        )


def _one_title(run: ReportedRun) -> str:
    state = run.state
    if state.state == FINISHED:
        took = f" in {duration(seconds)}" if (seconds := _seconds(run)) is not None else ""
        loss = run.metrics.last("loss")
        end = f", the last loss {number_text(loss)}" if loss is not None else ""
        return f"{run.name} finished {plural(state.step, 'step')}{took}{end}"
    why = f": {state.detail}" if state.detail else ""
    again = f", attempt {state.attempt}" if state.attempt > 1 else ""
    verb = state.state if state.state in HAS_ENDED_BADLY else f"is {state.state}"
    verb = f"was {verb}" if state.state in (CANCELLED, STOPPED) else verb
    return f"{run.name} {verb} at step {state.step:,} of {state.steps:,}{again}{why}"


def _seconds(run: ReportedRun) -> float | None:
    """From the submit to the end."""
    spans = run_spans(run.times, run.metrics.lines, run.state.steps)
    if run.times.submitted is None or not spans:
        return None
    end = run.times.ended if run.times.ended is not None else found_end(spans)
    return max(end - run.times.submitted, 0.0)


def _positive(run: ReportedRun, key: str) -> float | None:
    number = finite(run.config.get(key))
    return number if number is not None and number > 0 else None
