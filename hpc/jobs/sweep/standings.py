"""A sweep's trials beside one another: the state of each, its metric, and the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf import ConfigError
from conf.names import nearest
from hpc.jobs.errors import UsageError
from hpc.jobs.queue import run_states
from hpc.jobs.run.curve import RunCurve, read_curve
from hpc.jobs.run.folder import Run
from hpc.jobs.run.ranking import lower_is_better, ranking_name
from hpc.jobs.run.states import FINISHED, NOT_SUBMITTED, RunState
from hpc.jobs.sweep.ledger import LedgerLine, ledger_path, newest_lines, read_ledger, sweep_names


@dataclass(frozen=True)
class TrialStanding:
    """One trial, with its newest run; `value` is the newest of the sweep's metric."""

    values: dict[str, Any]
    state: RunState | None
    """None for one that was not sent, or whose folder was removed."""
    value: float | None

    @property
    def state_word(self) -> str:
        return self.state.state if self.state else NOT_SUBMITTED


@dataclass(frozen=True)
class SweepStandings:
    """The trials of a sweep, the best first, those without a value last."""

    name: str
    metric: str | None
    trials: tuple[TrialStanding, ...]

    @property
    def best(self) -> TrialStanding | None:
        """The best of those that have finished, or else of all that have a value."""
        valued = [one for one in self.trials if one.value is not None]
        finished = [one for one in valued if one.state_word == FINISHED]
        return next(iter(finished or valued), None)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as in `lockgate ls --sweep NAME --json`."""
        best = self.best
        return {
            "sweep": self.name,
            "metric": self.metric,
            "lower_is_better": lower_is_better(self.metric) if self.metric else None,
            "best": best.state.run if best and best.state else None,
            "trials": [
                {
                    **(one.state.as_dict() if one.state else {"run": None, "state": NOT_SUBMITTED}),
                    "values": one.values,
                    "value": one.value,
                }
                for one in self.trials
            ],
        }


def sweep_standings(runs: Path, name: str, metric: str | None = None) -> SweepStandings:
    """The standings of the sweep `name` by `metric`, or by the one that its runs are ranked by.

    Raises `UsageError` for a sweep that is not there, and `ConfigError` for a metric that no trial
    has; both name the nearest.
    """
    known = sweep_names(runs)
    if name not in known:
        raise UsageError(f"there is no sweep {name!r}. {nearest(name, known)}")
    lines = list(newest_lines(read_ledger(ledger_path(runs, name))).values())
    found = [Run(runs / line.run) for line in lines if line.run]
    present = [run for run in found if run.folder.is_dir()]
    states = {state.run: state for state in run_states(present)}
    curves = {run.name: read_curve(run.metrics) for run in present}
    logged = [tuple(curve.metrics) for curve in curves.values()]
    if metric is not None and not any(metric in names for names in logged):
        known = sorted({one for names in logged for one in names})
        raise ConfigError(f"--by {metric}: no trial has such a metric. {nearest(metric, known)}")
    chosen = metric or ranking_name(logged)
    trials = [_standing(line, states, curves, chosen) for line in lines]
    return SweepStandings(name, chosen, tuple(_sorted(trials, chosen)))


def _standing(
    line: LedgerLine,
    states: dict[str, RunState],
    curves: dict[str, RunCurve],
    metric: str | None,
) -> TrialStanding:
    curve = curves.get(line.run)
    summary = curve.metrics.get(metric) if curve and metric else None
    return TrialStanding(line.values, states.get(line.run), summary.last if summary else None)


def _sorted(trials: Sequence[TrialStanding], metric: str | None) -> list[TrialStanding]:
    sign = 1 if metric is None or lower_is_better(metric) else -1
    valued = [one for one in trials if one.value is not None]
    valued.sort(key=lambda one: sign * (one.value or 0.0))
    return valued + [one for one in trials if one.value is None]
