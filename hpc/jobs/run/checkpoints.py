"""The checkpoints that a run's folder holds now, and the best of them by its evaluations."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.jobs.regular_file import read_regular_file
from hpc.jobs.run.curve import RunCurve
from hpc.jobs.run.elastic import MANIFEST_LIMIT_BYTES
from hpc.jobs.run.folder import Run

MANIFEST = "manifest.json"  # hpc.train.manifest, which stands above, writes it last


@dataclass(frozen=True)
class KeptCheckpoint:
    """A sealed checkpoint; its checksums are verified only by the run that resumes from it."""

    step: int
    folder: Path


def kept_checkpoints(run: Run) -> tuple[KeptCheckpoint, ...]:
    """The sealed checkpoints of a run, oldest first; none where their folder cannot be read."""
    try:
        with os.scandir(run.checkpoints) as items:
            names = [item.name for item in items if item.name.isascii() and item.name.isdigit()]
    except OSError:
        return ()
    found = [KeptCheckpoint(int(name), run.checkpoints / name) for name in names]
    sealed = [one for one in found if os.path.isfile(one.folder / MANIFEST)]  # noqa: PTH113
    return tuple(sorted(sealed, key=lambda one: one.step))


def manifest_content(checkpoint: Path) -> dict[str, Any]:
    """The manifest of a sealed checkpoint as plain values. Raises OSError or ValueError."""
    content = json.loads(read_regular_file(checkpoint / MANIFEST, MANIFEST_LIMIT_BYTES))
    if not isinstance(content, dict):
        raise ValueError(f"{checkpoint / MANIFEST} is no JSON object")
    return content


def best_checkpoint(kept: Sequence[KeptCheckpoint], curve: RunCurve) -> KeptCheckpoint | None:
    """The kept checkpoint whose step has the best value of the run's main metric.

    None where none of them was evaluated.
    """
    found = scores(curve)
    scored = [one for one in kept if one.step in found]
    return max(scored, key=lambda one: (found[one.step], one.step), default=None)


def scores(curve: RunCurve) -> Mapping[int, float]:
    """The value of the run's main metric by evaluated step, with the sign by which more is better.

    Empty where nothing was evaluated.
    """
    name = curve.main_metric
    if name is None:
        return {}
    sign = -1 if curve.metrics[name].lower_is_better else 1
    values = curve.evaluations.items()
    return {step: sign * metrics[name] for step, metrics in values if name in metrics}
