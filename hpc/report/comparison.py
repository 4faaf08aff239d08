"""Several runs beside one another: the parameters in which they differ, and the metric. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from conf.schema import TARGET
from hpc.jobs.run.ranking import lower_is_better, ranking_name
from hpc.report.reported_run import ReportedRun
from serving.artifact.digest import canonical_json

MISSING = "–"
MOST_PARAMETERS = 12
NOT_PARAMETERS = ("task.name", "cluster.slurm_conf")
RUN_COLOURS, RANK_COLOURS = 8, 5


@dataclass(frozen=True)
class RankingMetric:
    """The metric that ranks runs: a curve's name, and which direction is better."""

    name: str
    higher_is_better: bool

    def value(self, run: ReportedRun) -> float | None:
        """The newest value of the run: that of the model that it has now."""
        return run.metrics.last(self.name)

    def ranked(self, runs: Sequence[ReportedRun]) -> list[ReportedRun]:
        """The runs that have a value, the best first."""
        known = [(value, run) for run in runs if (value := self.value(run)) is not None]
        known.sort(key=lambda one: one[0], reverse=self.higher_is_better)
        return [run for _, run in known]


def ranking_metric(runs: Sequence[ReportedRun]) -> RankingMetric | None:
    """The held-out metric that most runs have, or else the loss; None where nothing was logged."""
    logged = [
        [name for name in run.metrics.curves if run.metrics.last(name) is not None] for run in runs
    ]
    name = ranking_name(logged)
    return RankingMetric(name, not lower_is_better(name)) if name else None


def differing_parameters(runs: Sequence[ReportedRun]) -> list[str]:
    """The keys of the configs that have not one value in all runs, at most `MOST_PARAMETERS`."""
    keys = sorted({key for run in runs for key in run.config} - {*NOT_PARAMETERS})
    differing = [key for key in keys if len({_identity(run, key) for run in runs}) > 1]
    differing.sort(key=lambda key: (key.startswith("cluster."), key.startswith("task."), key))
    return differing[:MOST_PARAMETERS]


def parameter_value(run: ReportedRun, key: str) -> object:
    """The value of one key; of a class its name alone, a dash where there is none."""
    value = run.config.get(key, MISSING)
    is_class = key.endswith(TARGET) and isinstance(value, str)
    return str(value).rpartition(".")[2] if is_class else value


def parameter_text(value: object) -> str:
    """A config value in few letters, as it is typed."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def run_kinds(runs: Sequence[ReportedRun], metric: RankingMetric | None) -> dict[str, str]:
    """The class of each run's curve: a colour of its own for few, a fifth of the ranking for many.

    The first fifth is the best; runs without a value are in the last.
    """
    if len(runs) <= RUN_COLOURS:
        return {run.name: f"run{place}" for place, run in enumerate(runs)}
    ranked = metric.ranked(runs) if metric else []
    kinds = {run.name: f"rank{RANK_COLOURS - 1}" for run in runs}
    for place, run in enumerate(ranked):
        kinds[run.name] = f"rank{place * RANK_COLOURS // len(ranked)}"
    return kinds


def _identity(run: ReportedRun, key: str) -> tuple[bool, bytes]:
    """The value as one text, for 1 and 1.0 and true are three values."""
    return key in run.config, canonical_json(run.config.get(key))
