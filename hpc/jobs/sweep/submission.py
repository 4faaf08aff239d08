"""Sending a sweep: what is missing goes out, one array per resource shape, and nothing twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from conf.modes import sharing_new_files
from conf.user import user_name
from hpc.jobs.errors import SpecChanged, UsageError
from hpc.jobs.queue import run_states
from hpc.jobs.run.array import RunArray
from hpc.jobs.run.files import TrialFile, utc_now
from hpc.jobs.run.folder import Run, sweep_folder
from hpc.jobs.run.states import FINISHED, NOT_SUBMITTED, OVER, RunState
from hpc.jobs.slurm.arrays import LARGEST_ARRAY
from hpc.jobs.spec.snapshot import discard
from hpc.jobs.submit import free_name, ready_backend, submit, submit_array
from hpc.jobs.sweep.ledger import (
    LedgerLine,
    append_lines,
    ledger_path,
    newest_lines,
    one_writer,
    read_ledger,
)
from hpc.jobs.sweep.standings import was_stopped_early
from hpc.jobs.sweep.trials import Trial, trial_settings

SUBMITTED, ALREADY_IN, ENDED, NOT_SENT = "submitted", "already in", "ended", "not sent"
EARLY = "stopped early"
SHOWN_KEYS = 3


@dataclass(frozen=True)
class TrialOutcome:
    """The fate of one trial of a line: submitted now, in already, ended before, or not sent.

    One that its sweep has stopped early has ended for good, and is not sent again.
    """

    trial: Trial
    outcome: str
    run: Run | None = None
    job_id: str = ""
    state: str = ""
    """The state of a run that was there before; empty for one that was submitted now."""


@dataclass
class SweepSubmission:
    """The outcomes so far; complete, and true, at whatever point an error left it."""

    name: str
    trials: Sequence[Trial]
    outcomes: dict[str, TrialOutcome] = field(default_factory=dict)
    """By the trial's settings."""
    notes: list[str] = field(default_factory=list)
    """Sentences for people."""

    @property
    def in_order(self) -> list[TrialOutcome]:
        """One outcome per trial; those that nothing became of yet are not sent."""
        return [self.outcomes.get(one.settings, TrialOutcome(one, NOT_SENT)) for one in self.trials]

    def count(self, outcome: str) -> int:
        """The number of trials with this outcome."""
        return sum(one.outcome == outcome for one in self.in_order)


def send_missing(sweep: SweepSubmission, runs: Path, retry_failed: bool) -> None:
    """Send the trials that are not in yet; `sweep` has their outcomes also where this raises.

    With `retry_failed` those that ended without finishing are sent again. Raises `UsageError` for
    a sweep of other settings, and what `hpc.jobs.submit.submit` raises.
    """
    path = ledger_path(runs, sweep.name)
    ready_backend(sweep.trials[0].plan)  # before a folder is made that this user may not share
    with ExitStack() as stack:
        stack.enter_context(sharing_new_files())
        stack.enter_context(one_writer(path))
        lines = newest_lines(read_ledger(path))
        _refuse_other_settings(sweep, runs, lines)
        states = _states(runs, lines)
        missing: list[Trial] = []
        for trial in sweep.trials:
            line = lines.get(trial.settings)
            state = states.get(line.run) if line else None
            if state is None or _is_gone(runs, state):
                missing.append(trial)
                continue
            run, outcome = Run(runs / state.run), ALREADY_IN
            if _has_failed(state):
                outcome = EARLY if was_stopped_early(run) else ENDED
            if outcome == ENDED and retry_failed:
                missing.append(trial)
                continue
            sweep.outcomes[trial.settings] = TrialOutcome(
                trial, outcome, run, state.job_id, state.state
            )
        _note_other_code(sweep, lines)
        append_lines(path, [_line("planned", one) for one in missing if one.settings not in lines])
        for group in shapes(missing):
            _send(sweep, group, path, lines)


def shapes(trials: Sequence[Trial]) -> Iterator[list[Trial]]:
    """The trials in groups of one size and environment, none larger than an array can be."""

    def shape(trial: Trial) -> str:
        return repr((trial.plan.cluster, sorted(trial.plan.variables.items())))

    order = {shape(one): place for place, one in reversed(list(enumerate(trials)))}
    for _, alike in groupby(sorted(trials, key=lambda one: order[shape(one)]), key=shape):
        group = list(alike)
        for begin in range(0, len(group), LARGEST_ARRAY):
            yield group[begin : begin + LARGEST_ARRAY]


def array_of(sweep: str, group: Sequence[Trial]) -> RunArray:
    """The array that sends `group`; its name is that of no other array."""
    first = group[0].plan
    name = f"{sweep}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{first.spec.digest[:6]}"
    folder = sweep_folder(first.run.folder.parent, sweep) / name
    return RunArray(folder, tuple(one.plan.run for one in group))


def _send(
    sweep: SweepSubmission, group: Sequence[Trial], path: Path, before: dict[str, LedgerLine]
) -> None:
    taken: set[str] = set()
    named = []
    for trial in group:
        run = free_name(trial.plan, taken)
        taken.add(run.name)
        named.append(replace(trial, plan=replace(trial.plan, run=run)))
    append_lines(path, [_line("sending", one) for one in named])
    try:
        if len(named) == 1:
            sent = [submit(named[0].plan, TrialFile(sweep.name, named[0].values))]
        else:
            array = array_of(sweep.name, named)
            places = [
                TrialFile(sweep.name, one.values, array.name, number)
                for number, one in enumerate(named)
            ]
            sent = submit_array([one.plan for one in named], places, array)
    except BaseException:
        # A run that a trial had before is its run still.
        runs = [before[one.settings].run if one.settings in before else "" for one in named]
        append_lines(
            path,
            [
                replace(_line("not sent", one), run=run)
                for one, run in zip(named, runs, strict=True)
            ],
        )
        raise
    append_lines(
        path,
        [
            replace(_line("submitted", trial), job_id=one.job_id)
            for trial, one in zip(named, sent, strict=True)
        ],
    )
    for trial, one in zip(named, sent, strict=True):
        sweep.outcomes[trial.settings] = TrialOutcome(trial, SUBMITTED, one.run, one.job_id)


def _states(runs: Path, lines: dict[str, LedgerLine]) -> dict[str, RunState]:
    """The states of the trials' runs that are there, by name."""
    found = [Run(runs / line.run) for line in lines.values() if line.run]
    return {state.run: state for state in run_states([one for one in found if one.folder.is_dir()])}


def _has_failed(state: RunState) -> bool:
    """True for a run that is over and did not finish, by whatever hand."""
    return state.state in OVER and state.state != FINISHED


def _is_gone(runs: Path, state: RunState) -> bool:
    """True for a run whose submit was interrupted before Slurm had it; its folder is removed."""
    if state.state != NOT_SUBMITTED:
        return False
    discard(runs / state.run)
    return True


def _refuse_other_settings(
    sweep: SweepSubmission, runs: Path, lines: dict[str, LedgerLine]
) -> None:
    """Raise `UsageError` where trials of the ledger differ in more than their swept values."""
    for trial in sweep.trials:
        for line in lines.values():
            if line.settings == trial.settings or line.values.keys() != trial.values.keys():
                continue
            if line.base != trial.base:
                raise UsageError(
                    f"the sweep {sweep.name} has trials with other settings"
                    f"{_keys(trial, line, runs)}. A sweep's trials differ in what is swept alone; "
                    f"give this one a name of its own, as in sweep={sweep.name}-2"
                )


def _keys(trial: Trial, line: LedgerLine, runs: Path) -> str:
    """` (steps=100, here 200)` of the first settings that differ; empty without the run's spec."""
    try:
        before = trial_settings(Run(runs / line.run).spec)
    except SpecChanged:
        return ""
    now = trial.config
    keys = [
        key for key in sorted({*before, *now})
        if before.get(key) != now.get(key) and key not in trial.values
    ]  # fmt: skip
    shown = [f"{key}={before.get(key)}, here {now.get(key)}" for key in keys[:SHOWN_KEYS]]
    return f" ({'; '.join(shown)})" if shown else ""


def _note_other_code(sweep: SweepSubmission, lines: dict[str, LedgerLine]) -> None:
    """Note where trials that are in were sent with other code or data than the line has now."""
    for kind in ("source", "dataset"):
        others = {
            getattr(lines[settings], kind)[:12]
            for settings, one in sweep.outcomes.items()
            if getattr(lines[settings], kind) != getattr(one.trial.plan.spec, kind).digest
        }
        if others:
            now = getattr(sweep.trials[0].plan.spec, kind).digest[:12]
            sweep.notes.append(
                f"trials that are in have another {kind}: {', '.join(sorted(others))}, here {now}. "
                f"To send all of them anew, name another sweep, as in sweep={sweep.name}-2"
            )


def _line(event: str, trial: Trial) -> LedgerLine:
    spec = trial.plan.spec
    return LedgerLine(
        event=event,  # type: ignore[arg-type]
        at=utc_now(),
        user=user_name(),
        settings=trial.settings,
        base=trial.base,
        spec=spec.digest,
        source=spec.source.digest,
        dataset=spec.dataset.digest,
        values=trial.values,
        run="" if event == "planned" else trial.plan.run.name,
    )


def summary(sweep: SweepSubmission) -> str:
    """One sentence on all trials of a line."""
    parts = [
        f"{number} {words}"
        for words in (SUBMITTED, ALREADY_IN, EARLY, ENDED, NOT_SENT)
        if (number := sweep.count(words))
    ]
    return f"sweep {sweep.name}: {', '.join(parts) or 'no trials'}"
