"""Sentences about runs: how they ended, and what they asked for and did not use. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hpc.jobs.run.states import CANCELLED, FAILED, FINISHED, STOPPED
from hpc.report.comparison import ranking_metric
from hpc.report.logged_metrics import finite
from hpc.report.reported_run import ReportedRun
from hpc.report.tables import found_end
from hpc.report.text import duration, number_text, plural
from hpc.report.timeline import run_spans

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
    """Memory and time that were asked for and not used, a sentence each."""
    found = []
    asked, ranks = _positive(run, "cluster.mem_gb"), _positive(run, "cluster.tasks_per_node")
    if memory_bytes and asked and ranks:
        most = number_text(float(f"{memory_bytes * ranks / 2**30:.2g}"))
        found.append(f"memory: asked {number_text(asked)} GB of each node, used at most {most} GB")
    limit = _positive(run, "cluster.timeout_min")
    spans = [(one.began, one.ended) for one in run.times.attempts]
    known = [end - begin for begin, end in spans if begin is not None and end is not None]
    if limit and known and len(known) == len(spans):
        found.append(
            f"time limit: asked {duration(60 * limit)} for each attempt, "
            f"the longest took {duration(max(known))}"
        )
    return found


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
