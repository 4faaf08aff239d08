"""The verdict on a punished run: its goals, and a line about each that does not hold."""

from __future__ import annotations

from collections.abc import Sequence

from conf.site_schema import Site
from hpc.jobs.run.checkpoints import kept_checkpoints
from hpc.jobs.run.folder import Run
from hpc.train.metrics_log import read_metrics
from scripts.goals import Goal
from scripts.train_punish.comparison import (
    curve_points,
    difference_lines,
    differences,
    mlflow_points,
    tensors,
)
from scripts.train_punish.failure import PunisherFailed
from scripts.train_punish.punish import Punished
from scripts.train_punish.runs import CHECKPOINT_INTERVAL
from scripts.train_punish.trace import Cost
from scripts.train_punish.tracked import tracked_points

WEIGHTS = "model.safetensors"  # hpc.train.checkpoint, which imports torch
KINDS_HIT = "kinds of faults that were injected"
FINISHED = "the punished run came back by itself to its end"
WEIGHTS_DIFFER = "tensors of the final weights that differ"
CURVE_DIFFERS = "points of the curve that differ"
MLFLOW_DIFFERS = "points of MLflow that differ from metrics.jsonl"
STEPS_LOST = "most steps lost by one comeback with room on the disk"


def verdict(
    site: Site, kinds: Sequence[str], whole: Punished, hurt: Punished, found: Sequence[Cost]
) -> tuple[list[Goal], list[str]]:
    """Goals of a punishment with their values, and lines about what does not hold."""
    lines: list[str] = []
    finished = hurt.state == "finished"
    if not finished:
        name = hurt.run.name
        lines.append(f"{name} is {hurt.state}: scripts/site as train lockgate why {name}")
    hit = {cost.fault.kind for cost in found}
    values: dict[str, float] = {}
    if finished:
        for what, differ in (
            (WEIGHTS_DIFFER, _weights(whole.run, hurt.run)),
            (CURVE_DIFFERS, _curve(whole.run, hurt.run)),
        ):
            values[what] = len(differ)
            lines += difference_lines(what, differ)
        try:
            expected = mlflow_points(read_metrics(hurt.run.metrics))
            points, status = tracked_points(site, hurt.run)
            differ = differences(expected, points)
            values[MLFLOW_DIFFERS] = len(differ)
            lines += difference_lines(MLFLOW_DIFFERS, differ)
            if status != "FINISHED":
                lines.append(f"MLflow's status of {hurt.run.name} is {status}")
        except PunisherFailed as error:
            lines.append(str(error))
    lost = [cost.steps_lost / max(1, cost.comebacks) for cost in _with_room(found)]
    return [
        Goal(KINDS_HIT, len(set(kinds)), len(hit), "at least"),
        Goal(FINISHED, 1, float(finished), "at least"),
        Goal(WEIGHTS_DIFFER, 0, values.get(WEIGHTS_DIFFER)),
        Goal(CURVE_DIFFERS, 0, values.get(CURVE_DIFFERS)),
        Goal(MLFLOW_DIFFERS, 0, values.get(MLFLOW_DIFFERS)),
        Goal(STEPS_LOST, CHECKPOINT_INTERVAL, max(lost) if lost else None),
    ], lines


def _with_room(found: Sequence[Cost]) -> list[Cost]:
    """The costs that no full disk has raised: it is said of all after one, until a comeback."""
    kept, full = [], False
    for cost in found:
        full = full or cost.fault.kind == "disk"
        if not full:
            kept.append(cost)
        if cost.comebacks:
            full = False
    return kept


def _weights(whole: Run, hurt: Run) -> list[str]:
    """Names of the tensors of the last checkpoints that differ."""
    first, second = (kept_checkpoints(run)[-1:] for run in (whole, hurt))
    if not first or not second:
        return ["a run that finished has no checkpoint"]
    return differences(tensors(first[0].folder / WEIGHTS), tensors(second[0].folder / WEIGHTS)) + (
        [] if first[0].step == second[0].step else ["their last checkpoints are of other steps"]
    )


def _curve(whole: Run, hurt: Run) -> list[object]:
    """Metric and step of each point that differs, and sentences about steps that are twice."""
    first, faults = curve_points(read_metrics(whole.metrics))
    second, more = curve_points(read_metrics(hurt.metrics))
    return [*faults, *more, *differences(first, second)]
