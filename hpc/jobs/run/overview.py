"""One run in full, as its folder has it: settings, states over time, metrics, what it left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hpc.jobs.errors import SpecChanged
from hpc.jobs.run.checkpoints import KeptCheckpoint, best_checkpoint, kept_checkpoints
from hpc.jobs.run.curve import RunCurve, read_curve
from hpc.jobs.run.files import read_record, read_run_file
from hpc.jobs.run.folder import Run
from hpc.jobs.run.operators import OperatorRow, operator_rows, read_operators
from hpc.jobs.run.pins import PINNED, pinned_steps
from hpc.jobs.run.states import RunState
from hpc.jobs.run.stored import confirmed_steps
from hpc.jobs.run.timeline import RunTimeline, read_timeline
from hpc.jobs.spec.job_spec import JobSpec
from hpc.jobs.spec.settings import flat_settings
from serving.artifact.candidate import FILE as CANDIDATE_FILE
from serving.artifact.candidate import Candidate


@dataclass(frozen=True)
class RunOverview:
    """A run as `lockgate show` shows it; a part that is broken is empty, and a problem."""

    run: Run
    state: RunState
    spec: JobSpec | None
    timeline: RunTimeline
    curve: RunCurve
    checkpoints: tuple[KeptCheckpoint, ...]
    candidate: Candidate | None
    operators: tuple[OperatorRow, ...]
    problems: tuple[str, ...]
    """A sentence per file that is there and could not be used."""
    pinned: frozenset[int] = frozenset()
    """Steps of checkpoints that retention never removes."""
    stored: tuple[int, ...] = ()
    """Steps of which a whole copy was confirmed in the run's checkpoint store."""

    @property
    def settings(self) -> dict[str, Any]:
        """The frozen config by dotted key, secrets as references; empty without a spec."""
        return flat_settings(self.spec.content()["config"]) if self.spec else {}

    @property
    def best(self) -> KeptCheckpoint | None:
        return best_checkpoint(self.checkpoints, self.curve)

    @property
    def diffs(self) -> tuple[str, ...]:
        """Files with the edits that were not committed at submit."""
        paths = (self.run.folder / f"{name}.diff" for name in ("source", "project"))
        return tuple(str(path) for path in paths if path.is_file())

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as in `lockgate show --json`."""
        content = self.spec.content() if self.spec else {}
        return {
            **self.state.as_dict(),
            "folder": str(self.run.folder),
            "problems": list(self.problems),
            "spec": {"digest": self.spec.digest, **content} if self.spec else None,
            "diffs": list(self.diffs),
            "timeline": {
                **asdict(self.timeline),
                "requeues": self.timeline.requeues,
                "queued_seconds": self.timeline.queued_seconds,
            },
            "metrics": {name: asdict(one) for name, one in self.curve.metrics.items()},
            "evaluations": [
                {"step": step, **values} for step, values in self.curve.evaluations.items()
            ],
            "step_seconds": self.curve.step_seconds,
            "checkpoints": [_checkpoint(one) for one in self.checkpoints],
            "pinned": sorted(self.pinned),
            "stored": list(self.stored),
            "best_checkpoint": _checkpoint(self.best) if self.best else None,
            "candidate": _candidate(self),
            "operators": [asdict(one) for one in self.operators],
        }


def run_overview(run: Run, state: RunState) -> RunOverview:
    """Everything about `run`, whose state is `state`; raises nothing for what its folder holds."""
    record = read_record(run)
    curve = read_curve(run.metrics)
    candidate = read_run_file(Candidate, run.folder / "candidate" / CANDIDATE_FILE)
    ranks, unread = read_operators(run)
    problems = [*record.problems, curve.problem, candidate.problem, *unread]
    try:
        pinned = frozenset(pinned_steps(run.checkpoints))
    except OSError as error:
        pinned = frozenset()
        problems.append(f"{PINNED} cannot be read: {error.strerror}")
    try:
        spec = run.spec
    except SpecChanged as error:
        spec = None
        problems.append(str(error))
    return RunOverview(
        run=run,
        state=state,
        spec=spec,
        timeline=read_timeline(record),
        curve=curve,
        checkpoints=kept_checkpoints(run),
        candidate=candidate.value,
        operators=tuple(operator_rows(ranks)),
        problems=tuple(one for one in problems if one),
        pinned=pinned,
        stored=confirmed_steps(run.checkpoints),
    )


def _checkpoint(kept: KeptCheckpoint) -> Mapping[str, Any]:
    return {"step": kept.step, "folder": str(kept.folder)}


def _candidate(overview: RunOverview) -> Mapping[str, Any] | None:
    found = overview.candidate
    if found is None:
        return None
    return {
        "folder": str(overview.run.folder / "candidate"),
        "model": found.model,
        "metrics": found.metrics,
        "transform_digest": found.transform_digest,
    }
