"""Runs side by side: the settings in which they differ, their digests, and their metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from conf import ConfigError
from conf.names import nearest
from hpc.jobs.errors import SpecChanged
from hpc.jobs.run.curve import RunCurve, read_curve
from hpc.jobs.run.folder import Run
from hpc.jobs.run.states import RunState
from hpc.jobs.spec.job_spec import JobSpec
from hpc.jobs.spec.settings import flat_settings


@dataclass(frozen=True)
class ComparedRun:
    """One run of a comparison; `spec` is None for one whose spec cannot be used."""

    state: RunState
    spec: JobSpec | None
    curve: RunCurve

    @property
    def digests(self) -> dict[str, str | None]:
        """The digests of its code, data and packages; empty without a spec."""
        spec = self.spec
        if spec is None:
            return {}
        return {  # as text: a spec that somebody wrote by hand may have anything there
            "source": str(spec.source.digest),
            "project": str(spec.project.digest) if spec.project else None,
            "dataset": f"{spec.dataset.name}@{spec.dataset.digest}",
            "environment": str(spec.environment.digest),
        }

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as in `lockgate compare --json`."""
        return {
            **self.state.as_dict(),
            "problem": self.curve.problem,
            "spec_digest": self.spec.digest if self.spec else None,
            "digests": self.digests,
            "metrics": {name: asdict(one) for name, one in self.curve.metrics.items()},
            "step_seconds": self.curve.step_seconds,
        }


def compared_run(run: Run, state: RunState) -> ComparedRun:
    """`run` for a comparison, whose state is `state`; raises nothing for what its folder holds."""
    try:
        spec: JobSpec | None = run.spec
    except SpecChanged:  # the state's detail has the sentence
        spec = None
    return ComparedRun(state, spec, read_curve(run.metrics))


def sorted_runs(runs: Sequence[ComparedRun], metric: str) -> list[ComparedRun]:
    """`runs` by the best value of `metric`, the best first; those without one keep their order.

    Raises `ConfigError` for a metric that none of them has, with the nearest.
    """
    known = metric_names(runs)
    if metric not in known:
        raise ConfigError(f"--by {metric}: no run here has such a metric. {nearest(metric, known)}")
    scored = [run for run in runs if metric in run.curve.metrics]
    lower = scored[0].curve.metrics[metric].lower_is_better
    scored.sort(key=lambda run: run.curve.metrics[metric].best, reverse=not lower)
    return scored + [run for run in runs if metric not in run.curve.metrics]


def metric_names(runs: Sequence[ComparedRun]) -> list[str]:
    """Every metric of any of the runs, in the order of their logs."""
    return list(dict.fromkeys(name for run in runs for name in run.curve.metrics))


def differing_settings(runs: Sequence[ComparedRun]) -> dict[str, list[dict[str, Any]]]:
    """Dotted key -> `{"value": ...}` of each run, `{}` where it has none; only where they differ.

    A run without a usable spec has none, and makes no difference.
    """
    flat = [flat_settings(_settings(run.spec)) if run.spec else None for run in runs]
    keys = dict.fromkeys(key for settings in flat if settings for key in settings)
    rows = {
        key: [{"value": one[key]} if one and key in one else {} for one in flat] for key in keys
    }
    usable = [place for place, one in enumerate(flat) if one is not None]
    return {
        key: row
        for key, row in sorted(rows.items())
        if any(repr(row[place]) != repr(row[usable[0]]) for place in usable)
    }


def _settings(spec: JobSpec) -> dict[str, Any]:
    """The resolved spec but for its digests, which are compared whole."""
    return {"task": spec.task, **spec.content()["config"]}
