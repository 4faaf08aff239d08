"""`init_from=RUN[@STEP]`: the weights of another run's checkpoint, found and frozen at submit."""

from __future__ import annotations

import re
from pathlib import Path

from conf.names import RUN_LETTERS, check_name
from hpc.jobs.errors import UsageError
from hpc.jobs.run.checkpoints import KeptCheckpoint, kept_checkpoints, manifest_content
from hpc.jobs.run.folder import Run, find_run
from hpc.jobs.spec.ancestry import InitialWeights
from serving.artifact.digest import file_sha256

WEIGHTS = "model.safetensors"
"""Whole fp32 weights in a checkpoint, as hpc.train.checkpoint writes them."""
STEP = re.compile(r"[0-9]{1,12}", re.ASCII)
NEAREST = 4
"""Steps that a refusal lists."""


def find_initial_weights(runs: Path, words: str) -> InitialWeights:
    """The weights that `RUN` or `RUN@STEP` names, without a step the newest good ones.

    The file is read whole, and compared with its checkpoint's manifest. Raises `UnknownRun`, and
    `UsageError` for a step that is not there and for weights that are not what was written.
    """
    name, at, step = words.partition("@")
    check_name("init_from", name, "lockgate train init_from={}", RUN_LETTERS)
    if at and not STEP.fullmatch(step):
        raise UsageError(f"init_from={words}: a step is a number, as in init_from={name}@100")
    run = find_run(runs, name)
    kept = kept_checkpoints(run)
    if not kept:
        raise UsageError(
            f"init_from={words}: {run.name} has no checkpoint; runs and their checkpoints: "
            "lockgate ls, lockgate show RUN"
        )
    if at:
        return _of_step(run, kept, int(step))
    for one in reversed(kept):
        if (digest := _good_digest(one)) is not None:
            return InitialWeights(run.name, one.step, str(one.folder.resolve() / WEIGHTS), digest)
    raise UsageError(
        f"init_from={words}: no checkpoint of {run.name} is good: {WEIGHTS} of each "
        f"({steps_listed(kept)}) is missing or is not what was written"
    )


def steps_listed(kept: tuple[KeptCheckpoint, ...]) -> str:
    """The steps of some checkpoints, in words."""
    return ", ".join(str(one.step) for one in kept)


def nearest_steps(kept: tuple[KeptCheckpoint, ...], step: int) -> str:
    """The steps of `kept` that are nearest to `step`, ascending, in words."""
    near = sorted(kept, key=lambda one: (abs(one.step - step), one.step))[:NEAREST]
    return steps_listed(tuple(sorted(near, key=lambda one: one.step)))


def _of_step(run: Run, kept: tuple[KeptCheckpoint, ...], step: int) -> InitialWeights:
    found = [one for one in kept if one.step == step]
    if not found:
        raise UsageError(
            f"init_from={run.name}@{step}: there is no checkpoint of step {step}. Nearest: "
            f"{nearest_steps(kept, step)}. A run keeps its newest, see keep_checkpoints"
        )
    digest = _good_digest(found[0])
    if digest is None:
        others = steps_listed(tuple(one for one in kept if one.step != step)) or "none"
        raise UsageError(
            f"init_from={run.name}@{step}: its {WEIGHTS} is missing or is not what was written. "
            f"Other steps: {others}"
        )
    return InitialWeights(run.name, step, str(found[0].folder.resolve() / WEIGHTS), digest)


def _good_digest(kept: KeptCheckpoint) -> str | None:
    """The sha256 of a checkpoint's weights; None unless they are what its manifest has."""
    try:
        size, digest = manifest_content(kept.folder)["files"][WEIGHTS]
        path = kept.folder / WEIGHTS
        if path.is_file() and path.stat().st_size == size and file_sha256(path) == digest:
            return str(digest)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        pass
    return None
