"""The cost of a submit before it: hours asked for, the expected start, and what is new in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpc.jobs.backend import find_backend
from hpc.jobs.errors import SpecChanged
from hpc.jobs.run.folder import RUN_NAME, Run, all_runs
from hpc.jobs.spec.job_spec import JobSpec
from hpc.jobs.spec.settings import flat_settings
from hpc.jobs.submit import SubmitPlan

STAMP_LETTERS = len("-20260102-030405-abcdef")


@dataclass(frozen=True)
class SettingChange:
    """A setting that is not as it was; None for one that was not, or is no more, there."""

    key: str
    before: Any
    now: Any


@dataclass(frozen=True)
class Forecast:
    """The cost of one or more runs of one size, at most: each may take its whole time limit."""

    gpu_hours: float
    cpu_hours: float
    """Of the cores asked for, whether there are GPUs or not."""
    expected_start: str | None
    """Local time by Slurm; None where it expects none."""
    last_run: str | None
    """The newest run of the task that can be read."""
    changes: tuple[SettingChange, ...]
    """In what the first of the runs differs from it."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as in `lockgate train --dry-run --json`."""
        return asdict(self)


def forecast(plans: Sequence[SubmitPlan], script: str) -> Forecast:
    """The forecast for `plans`, all of one size and sent by `script`; writes nothing."""
    first = plans[0]
    cluster, hours = first.cluster, len(plans) * first.cluster.timeout_min / 60
    before = last_run(first.run.folder.parent, first.spec.task)
    return Forecast(
        gpu_hours=round(hours * cluster.nodes * cluster.gpus_per_node, 3),
        cpu_hours=round(hours * cluster.ranks * cluster.cpus_per_task, 3),
        expected_start=find_backend(cluster.kind).expected_start(script, first.variables),
        last_run=before.name if before else None,
        changes=tuple(spec_changes(before.spec, first.spec)) if before else (),
    )


def last_run(runs: Path, task: str) -> Run | None:
    """The newest run of `task` whose spec can be read."""
    for run in reversed(all_runs(runs)):
        if not RUN_NAME.fullmatch(run.name) or run.name[:-STAMP_LETTERS] != task:
            continue
        try:
            run.spec  # noqa: B018  read once, and kept
        except SpecChanged:
            continue
        return run
    return None


def spec_changes(before: JobSpec, now: JobSpec) -> list[SettingChange]:
    """The settings, and the digests of code, data and packages, that differ."""
    old, new = _settings(before), _settings(now)
    return [
        SettingChange(key, old.get(key), new.get(key))
        for key in sorted({*old, *new})
        if repr(old.get(key)) != repr(new.get(key))
    ]


def _settings(spec: JobSpec) -> dict[str, Any]:
    digests = {
        "source": spec.source.digest[:12],
        "project": spec.project.digest[:12] if spec.project else None,
        "dataset": f"{spec.dataset.name}@{spec.dataset.digest[:12]}",
        "packages": spec.environment.digest[:12],
    }
    return {**flat_settings(spec.content()["config"]), **digests}
