"""A sweep's trials beside one another: the state of each, its metric, and the best.

By which metric, and in which direction, is in the sweep's objective.json where a person named it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf import ConfigError
from conf.names import nearest
from hpc.jobs.errors import UsageError
from hpc.jobs.queue import run_states
from hpc.jobs.run.curve import RunCurve, read_curve
from hpc.jobs.run.files import CancelFile, read_run_file, write_run_file
from hpc.jobs.run.folder import Run, sweep_folder
from hpc.jobs.run.ranking import lower_is_better, ranking_name
from hpc.jobs.run.states import CANCELLED, FINISHED, NOT_SUBMITTED, RunState
from hpc.jobs.spec.sweeper import MAXIMIZE, MINIMIZE
from hpc.jobs.sweep.ledger import LedgerLine, ledger_path, newest_lines, read_ledger, sweep_names


@dataclass(frozen=True)
class ObjectiveFile:
    """objective.json of a sweep: what `sweeper.metric` and `sweeper.direction` were typed."""

    metric: str | None = None
    direction: str | None = None

    def __post_init__(self) -> None:
        if self.direction not in (None, MINIMIZE, MAXIMIZE):
            raise ValueError(f"direction={self.direction}: must be {MINIMIZE} or {MAXIMIZE}")

    def lower_is_better(self, metric: str) -> bool:
        """The direction of `metric`: that of its name, where no other was typed."""
        if self.direction is not None and self.metric in (None, metric):
            return self.direction == MINIMIZE
        return lower_is_better(metric)


def write_objective(runs: Path, sweep: str, objective: ObjectiveFile) -> None:
    """Keep a typed objective in the sweep's folder, which is there; one of nothing is not kept."""
    if objective != ObjectiveFile():
        write_run_file(_objective_path(runs, sweep), objective)


@dataclass(frozen=True)
class TrialStanding:
    """One trial, with its newest run; `value` is the newest of the sweep's metric."""

    number: int
    """Its place in the ledger, from 0."""
    values: dict[str, Any]
    state: RunState | None
    """None for one that was not sent, or whose folder was removed."""
    value: float | None
    stopped_early: bool = False
    """True for one that its sweep has cancelled."""

    @property
    def state_word(self) -> str:
        return self.state.state if self.state else NOT_SUBMITTED


@dataclass(frozen=True)
class SweepStandings:
    """The trials of a sweep, the best first, those without a value last."""

    name: str
    metric: str | None
    lower_is_better: bool | None
    """None without a metric."""
    trials: tuple[TrialStanding, ...]
    logged: tuple[str, ...] = ()
    """Every metric that a trial has."""

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
            "lower_is_better": self.lower_is_better,
            "best": best.state.run if best and best.state else None,
            "trials": [
                {
                    **(one.state.as_dict() if one.state else {"run": None, "state": NOT_SUBMITTED}),
                    "values": one.values,
                    "value": one.value,
                    "stopped_early": one.stopped_early,
                }
                for one in self.trials
            ],
        }


def sweep_standings(
    runs: Path,
    name: str,
    metric: str | None = None,
    curve_of: Callable[[Path], RunCurve] = read_curve,
) -> SweepStandings:
    """The standings of the sweep `name` by `metric`, or by the one that its runs are ranked by.

    That is the one of its objective, once a trial has it. Raises `UsageError` for a sweep that is
    not there, and `ConfigError` for a metric that no trial has; both name the nearest.
    """
    known = sweep_names(runs)
    if name not in known:
        raise UsageError(f"there is no sweep {name!r}. {nearest(name, known)}")
    lines = list(newest_lines(read_ledger(ledger_path(runs, name))).values())
    found = [Run(runs / line.run) for line in lines if line.run]
    present = [run for run in found if run.folder.is_dir()]
    states = {state.run: state for state in run_states(present)}
    curves = {run.name: curve_of(run.metrics) for run in present}
    logged = [tuple(curve.metrics) for curve in curves.values()]
    names = tuple(sorted({one for names in logged for one in names}))
    if metric is not None and metric not in names:
        raise ConfigError(f"--by {metric}: no trial has such a metric. {nearest(metric, names)}")
    found_objective = read_run_file(ObjectiveFile, _objective_path(runs, name)).value
    objective = found_objective or ObjectiveFile()
    chosen = metric or (objective.metric if objective.metric in names else ranking_name(logged))
    lower = objective.lower_is_better(chosen) if chosen else None
    trials = [
        _standing(number, line, states, curves, chosen, runs) for number, line in enumerate(lines)
    ]
    return SweepStandings(name, chosen, lower, tuple(_sorted(trials, lower)), names)


def was_stopped_early(run: Run) -> bool:
    """True for a run whose sweep has cancelled it."""
    cancel = read_run_file(CancelFile, run.cancelled).value
    return cancel is not None and bool(cancel.early_stop)


def _objective_path(runs: Path, sweep: str) -> Path:
    return sweep_folder(runs, sweep) / "objective.json"


def _standing(
    number: int,
    line: LedgerLine,
    states: dict[str, RunState],
    curves: dict[str, RunCurve],
    metric: str | None,
    runs: Path,
) -> TrialStanding:
    curve, state = curves.get(line.run), states.get(line.run)
    summary = curve.metrics.get(metric) if curve and metric else None
    cancelled = state is not None and state.state == CANCELLED
    return TrialStanding(
        number,
        line.values,
        state,
        summary.last if summary else None,
        cancelled and was_stopped_early(Run(runs / line.run)),
    )


def _sorted(trials: Sequence[TrialStanding], lower: bool | None) -> list[TrialStanding]:
    sign = -1 if lower is False else 1
    valued = [one for one in trials if one.value is not None]
    valued.sort(key=lambda one: sign * (one.value or 0.0))
    return valued + [one for one in trials if one.value is None]
