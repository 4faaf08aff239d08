"""The trials of a sweep as rows, and the sentence that names the best one."""

from __future__ import annotations

from hpc.jobs.run.states import FINISHED
from hpc.jobs.run.swept_values import values_text
from hpc.jobs.sweep.standings import SweepStandings


def sweep_header(found: SweepStandings) -> list[str]:
    """The names of the columns of `sweep_rows`."""
    return ["run", "values", "state", "step", found.metric or "metric", ""]


def sweep_rows(found: SweepStandings) -> list[list[str]]:
    """One row per trial, the best first."""
    return [
        [
            one.state.run if one.state else "-",
            values_text(one.values) or "-",
            one.state_word,
            f"{one.state.step}/{one.state.steps}" if one.state else "-",
            "" if one.value is None else f"{one.value:.6g}",
            one.state.detail if one.state else "",
        ]
        for one in found.trials
    ]


def best_text(found: SweepStandings) -> str:
    """`best: RUN  lr=0.01  validation_log_loss 0.4`; empty where no trial has a value."""
    best = found.best
    if best is None or best.state is None:
        return ""
    so_far = "" if best.state_word == FINISHED else " so far"
    values = values_text(best.values)
    return f"best{so_far}: {best.state.run}  {values}  {found.metric} {best.value:.6g}"
