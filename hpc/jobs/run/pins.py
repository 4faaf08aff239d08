"""Pinned checkpoints of a run: the steps in the file `pinned`, which retention never removes."""

from __future__ import annotations

from pathlib import Path

from hpc.jobs.errors import UsageError
from hpc.jobs.run.checkpoints import kept_checkpoints
from hpc.jobs.run.folder import Run
from hpc.jobs.run.init_from import nearest_steps
from serving.artifact.durable import replace_file

PINNED = "pinned"
"""File beside the checkpoints: steps that are never removed, one a line; `#` begins a comment."""


def pinned_steps(checkpoints: Path) -> set[int]:
    """The steps in the `pinned` file of a run's folder of checkpoints; a line of none is no step.

    A file that is there and cannot be read raises OSError: what it protects must not go.
    """
    return {step for line in _lines(checkpoints) if (step := _step(line)) is not None}


def pin_checkpoint(run: Run, step: int | None) -> int:
    """Pin the checkpoint of `step`, or the newest one; returns its step. Pinned before: no change.

    Raises `UsageError` where there is no such checkpoint, also one that a job removed meanwhile.
    """
    kept = kept_checkpoints(run)
    if not kept:
        raise UsageError(f"{run.name} has no checkpoint to pin: lockgate show {run.name}")
    wanted = kept[-1].step if step is None else step
    if wanted not in {one.step for one in kept}:
        raise UsageError(
            f"{run.name} has no checkpoint of step {wanted}. Nearest: "
            f"{nearest_steps(kept, wanted)}. As in lockgate pin {run.name}@{kept[-1].step}"
        )
    folder = run.checkpoints
    if wanted not in pinned_steps(folder):
        _write(folder, [*_lines(folder), str(wanted)])
    if wanted not in {one.step for one in kept_checkpoints(run)}:  # its job was faster
        unpin_checkpoint(run, wanted)
        raise UsageError(f"the checkpoint of step {wanted} was just removed by the run's own job")
    return wanted


def unpin_checkpoint(run: Run, step: int | None) -> int:
    """Take the pin off `step`, or off the only one that is pinned; returns its step.

    The checkpoint stays until the run's own retention removes it. Raises `UsageError`.
    """
    folder = run.checkpoints
    pinned = sorted(pinned_steps(folder))
    listed = ", ".join(map(str, pinned)) or "none"
    if step is None and len(pinned) != 1:
        which = "Name one" if pinned else "Nothing is to be taken off"
        raise UsageError(f"pinned checkpoints of {run.name}: {listed}. {which}")
    wanted = pinned[0] if step is None else step
    if wanted not in pinned:
        raise UsageError(f"step {wanted} of {run.name} is not pinned. Pinned: {listed}")
    _write(folder, [line for line in _lines(folder) if _step(line) != wanted])
    return wanted


def _lines(checkpoints: Path) -> list[str]:
    try:
        return (checkpoints / PINNED).read_text().splitlines()
    except FileNotFoundError:
        return []


def _step(line: str) -> int | None:
    word = line.partition("#")[0].strip()
    return int(word) if word.isascii() and word.isdigit() else None


def _write(checkpoints: Path, lines: list[str]) -> None:
    replace_file(checkpoints / PINNED, "".join(f"{line}\n" for line in lines))
