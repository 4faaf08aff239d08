"""The notes beside a run's checkpoints on their copies in a checkpoint store.

checkpoints/<step>.stored/   confirmed.json  rank-<rank>-of-<ranks>.json
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hpc.jobs.run.files import read_run_file

SUFFIX = ".stored"
CONFIRMED = "confirmed.json"


@dataclass(frozen=True)
class StoredFile:
    """confirmed.json, written by rank 0: the copy of a checkpoint was read back and is whole."""

    address: str
    """Of the store."""
    manifest: str
    """sha256 of the checkpoint's manifest, which has the digest of each file."""
    confirmed: str
    """ISO time."""


@dataclass(frozen=True)
class PartFile:
    """rank-R-of-N.json, written by that rank: how its part of a copy went."""

    manifest: str
    """sha256 of the checkpoint's manifest."""
    turn: int
    """Number of the try in its attempt."""
    fault: str | None = None
    """None for a part that was read back."""
    damaged: bool = False
    """True where the fault is the checkpoint's own, and not the store's."""


def notes_folder(checkpoints: Path, step: int) -> Path:
    """The folder of the notes on the copy of a step, whether it is there or not."""
    return checkpoints / f"{step:08d}{SUFFIX}"


def confirmed_steps(checkpoints: Path) -> tuple[int, ...]:
    """The steps of which a whole copy was confirmed in the store of a run, ascending.

    `checkpoints` is the folder of the run's checkpoints.
    """
    try:
        with os.scandir(checkpoints) as items:
            names = [item.name for item in items if item.name.endswith(SUFFIX)]
    except OSError:
        return ()
    steps = [name.removesuffix(SUFFIX) for name in names]
    found = sorted(int(step) for step in steps if step.isascii() and step.isdigit())
    notes = {step: notes_folder(checkpoints, step) / CONFIRMED for step in found}
    return tuple(step for step, path in notes.items() if read_run_file(StoredFile, path).value)
