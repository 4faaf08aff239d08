"""The plan of a resumed run: from which checkpoint, with what settings, code and data."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from conf import ConfigError, compose
from hpc.data.lineage import lineage_digest
from hpc.jobs.backend import find_backend
from hpc.jobs.errors import DatasetMissing, SpecChanged, UsageError
from hpc.jobs.queue import run_state
from hpc.jobs.resume.image import resumed_image
from hpc.jobs.resume.inherit import inherit
from hpc.jobs.resume.rates import rate_sentence
from hpc.jobs.run.checkpoints import MANIFEST, KeptCheckpoint, kept_checkpoints, manifest_content
from hpc.jobs.run.elastic import fits, read_layout
from hpc.jobs.run.folder import Run, run_name
from hpc.jobs.run.states import FINISHED, NOT_SUBMITTED, UNKNOWN, RunState
from hpc.jobs.spec.ancestry import FILE, Parent
from hpc.jobs.spec.changes import (
    RefusedChange,
    changed_settings,
    differences,
    parsed_change,
)
from hpc.jobs.spec.command_line import hydra_value, train_words
from hpc.jobs.spec.config import (
    cluster_config,
    run_config,
    schedule_config,
    with_whole_numbers,
)
from hpc.jobs.spec.environment import environment_of, installed_packages
from hpc.jobs.spec.job_spec import JobSpec
from hpc.jobs.spec.newer_keys import newer_keys, with_keys, without_keys
from hpc.jobs.spec.resolve import resolve
from hpc.jobs.spec.snapshot import Code, check_snapshot, read_code, snapshot_of
from hpc.jobs.spec.submit_checks import check_changed
from hpc.jobs.submit import SubmitPlan
from hpc.jobs.variables import job_variables
from serving.artifact.digest import file_sha256

OWN, CURRENT = "run", "current"
"""The source of a resumed run: its parent's snapshot, or the code as it stands."""


@dataclass(frozen=True)
class ResumePlan:
    """A resumed run that could be submitted, and what to mention about it."""

    submit: SubmitPlan
    parent: Parent
    notes: tuple[str, ...]


def resume_plan(
    run: Run,
    overrides: Sequence[str],
    source: str,
    checkpoint_fault: Callable[[Path], str | None],
    now: datetime | None = None,
) -> ResumePlan:
    """Plan a run that goes on from the newest good checkpoint of `run`; writes nothing.

    `checkpoint_fault` verifies the checkpoint in a folder. Raises a `JobError` or `ConfigError`
    with the reason for a run that cannot go on, or not so.
    """
    spec, state = run.spec, run_state(run)
    _check_over(run, state)
    checkpoint, notes = _newest_good(run, checkpoint_fault)
    before = spec.content()["config"]
    newer = newer_keys(before)
    refused = RefusedChange(_words(spec), f"{run.name}@{checkpoint.step}")
    plain = changed_settings(
        with_keys(before, newer), overrides, partial(_cluster_option, spec.task), refused
    )
    if source == OWN:
        _check_older_code(run, overrides, newer)
        plain = without_keys(plain, newer)
    else:
        before = with_keys(before, newer)
    notes += [*_newer_sentence(run, source, newer), *_fit_ranks(plain, checkpoint)]
    config = OmegaConf.create(plain)
    run_settings, cluster = run_config(config), cluster_config(config)
    find_backend(cluster.kind)
    _check_steps(run, state, checkpoint.step, run_settings.steps)
    _check_dataset(spec)
    code, snapshots = _code(run, source), run.folder.parent / "snapshots"
    where = snapshot_of(snapshots, *_sources(spec, code))
    resolved = with_whole_numbers(resolve(config, cluster.pass_environment), run_settings, cluster)
    changed = differences(before, resolved)
    variables = job_variables(cluster, where, str(spec.config.site.root))
    check_changed(config, spec.dataset.folder, variables["PYTHONPATH"] if code is None else None)
    image, image_note = resumed_image(spec.container, cluster, overrides, run.name)
    packages = installed_packages()
    parent = Parent(
        run=run.name,
        spec_digest=spec.digest,
        step=checkpoint.step,
        checkpoint=_sha256(checkpoint),
        changed=changed,
        source=source,
    )
    made = replace(
        spec,
        plain=resolved,
        source=_sources(spec, code)[0],
        project=_sources(spec, code)[1],
        environment=environment_of(packages),
        parent=parent,
        container=image,
    )
    notes += [
        rate_sentence(
            schedule_config(config), checkpoint.step, int(spec.config.steps), run_settings.steps
        )
    ]
    notes.append(image_note)
    if made.environment != spec.environment and image is None:
        notes.append("the installed packages are others than its parent's, see environment.txt")
    return ResumePlan(
        SubmitPlan(
            Run(run.folder.parent / run_name(made, now or datetime.now(UTC))),
            made,
            cluster,
            code,
            tuple(packages),
            variables,
            partial(inherit, checkpoint, run),
        ),
        parent,
        tuple(filter(None, notes)),
    )


def _check_over(run: Run, state: RunState) -> None:
    if state.state == NOT_SUBMITTED:
        raise UsageError(f"{run.name} was never submitted; there is nothing to go on from")
    if state.state == UNKNOWN:
        raise UsageError(
            f"{run.name}: whether it ended cannot be seen now ({state.detail}), and two jobs must "
            "not go on from one run. Try again when it can: lockgate ls"
        )
    if not state.over:
        raise UsageError(
            f"{run.name} is {state.state}: it goes on by itself. To go on with other settings, end "
            f"it first: lockgate cancel {run.name}"
        )


def _newest_good(
    run: Run, checkpoint_fault: Callable[[Path], str | None]
) -> tuple[KeptCheckpoint, list[str]]:
    passed_over: list[str] = []
    for one in reversed(kept_checkpoints(run)):
        fault = checkpoint_fault(one.folder)
        if fault is None:
            return one, passed_over
        passed_over.append(f"checkpoint {one.folder.name} is passed over: {fault}")
    why = f" ({'; '.join(passed_over)})" if passed_over else ""
    again = _words(run.spec)
    raise UsageError(
        f"{run.name} has no good checkpoint to go on from{why}. Start it anew: "
        f"{' '.join(again) or 'lockgate train task=' + run.spec.task}"
    )


def _words(spec: JobSpec) -> list[str]:
    """`lockgate train ...` of a run's settings; empty where today's tree cannot give them."""
    try:
        return ["lockgate", "train", *train_words(spec)]
    except ConfigError:
        return []


def _cluster_option(task: str, name: str) -> dict[str, Any]:
    composed = compose("train", [f"task={task}", f"cluster={name}"])
    plain = OmegaConf.to_container(composed.cluster, resolve=True)
    assert isinstance(plain, dict)  # a group's option is a mapping
    return {str(key): value for key, value in plain.items()}


def _fit_ranks(plain: dict[str, Any], checkpoint: KeptCheckpoint) -> list[str]:
    """Keep the global batch of `plain` for its ranks, in place; returns what that changed."""
    config = OmegaConf.create(plain)
    run, cluster = run_config(config), cluster_config(config)
    layout = read_layout(checkpoint.folder)
    if layout is None:
        if (before := manifest_content(checkpoint.folder).get("world_size")) != cluster.ranks:
            raise UsageError(
                f"checkpoint {checkpoint.folder.name} was written by {before} ranks and this job "
                f"would have {cluster.ranks}; it is older than the record that would allow it. Go "
                "on with as many ranks as before: cluster.nodes x cluster.tasks_per_node"
            )
        return []
    way = fits(layout, cluster.ranks, run.zero_stage, run.micro_batch_size)
    plain["gradient_accumulation_steps"] = way.gradient_accumulation_steps
    return [way.sentence]


def _check_older_code(run: Run, overrides: Sequence[str], newer: Collection[str]) -> None:
    """Raise `UsageError` for a change of a key that the run's own code does not have."""
    for text in overrides:
        key = parsed_change(text).get_key_element().lstrip("+")
        if key in newer:
            raise UsageError(
                f"{text}: {run.name} is of code that is older than {key} and goes on without it. "
                f"To set it, go on with the code as it stands now: {_with_current(run, text)}"
            )


def _with_current(run: Run, override: str) -> str:
    return shlex.join(["lockgate", "resume", run.name, override, "--source", CURRENT])


def _newer_sentence(run: Run, source: str, newer: Mapping[str, object]) -> list[str]:
    """A note with the keys that are newer than the run's spec; none where there are none."""
    if not newer:
        return []
    if source == OWN:
        return [f"older than these keys, it goes on without them: {', '.join(newer)}"]
    values = ", ".join(f"{key}={hydra_value(value)}" for key, value in newer.items())
    return [f"its spec is older than these keys, which get what was done before them: {values}"]


def _check_steps(run: Run, state: RunState, done: int, steps: int) -> None:
    if steps > done:
        return
    if state.state != FINISHED and steps == done == state.steps:
        raise UsageError(
            f"{run.name} has done all {done} steps, and its candidate was not made. Make it: "
            f"lockgate export {run.name}"
        )
    raise UsageError(
        f"{run.name} has done {done} steps, and steps={steps} leaves nothing to do. Give it more: "
        f"lockgate resume {run.name} steps={2 * done}"
    )


def _check_dataset(spec: JobSpec) -> None:
    if lineage_digest(spec.dataset.folder) != spec.dataset.digest:
        raise DatasetMissing(
            f"the dataset {spec.dataset.name}@{spec.dataset.digest[:12]} is not at "
            f"{spec.dataset.path} any more, and a run goes on with the data that it learned from"
        )


def _code(run: Run, source: str) -> Code | None:
    """The code as it stands for `current`; None for the run's own snapshot, once it is checked."""
    spec = run.spec
    if source == CURRENT:
        code = read_code()
        if (code.project is None) != (spec.project is None):
            here = "no project" if code.project is None else f"the project {code.project.root}"
            there = "one" if spec.project else "none"
            raise UsageError(
                f"--source current: this folder has {here}, and {run.name} was of {there}. Go to "
                "the right folder, or name it with --project DIR"
            )
        return code
    try:
        snapshot = check_snapshot(run.folder.parent / "snapshots", spec)
    except SpecChanged as error:
        raise SpecChanged(
            f"the source of {run.name} is not there as it was: {error} To go on with the code as "
            f"it stands now: lockgate resume {run.name} --source current"
        ) from error
    if not (snapshot.folder / FILE).is_file():
        raise UsageError(
            f"{run.name} was submitted with a Lockgate that could not go on from another run. Go "
            f"on with the code as it stands now: lockgate resume {run.name} --source current"
        )
    return None


def _sources(spec: JobSpec, code: Code | None) -> tuple[Any, Any]:
    if code is None:
        return spec.source, spec.project
    return code.checkout.source, code.project.source if code.project else None


def _sha256(checkpoint: KeptCheckpoint) -> str:
    return file_sha256(checkpoint.folder / MANIFEST)
