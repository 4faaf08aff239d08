"""A resumed run's part of its parent: the checkpoint's files, and the curve up to its step."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from hpc.jobs.run.checkpoints import KeptCheckpoint
from hpc.jobs.run.folder import Run
from hpc.jobs.run.metric_lines import metric_lines
from serving.artifact.durable import replace_file, sync_tree

POINTER = "latest"
"""The file beside the checkpoints that names the newest, as hpc.train.checkpoint writes it."""


def inherit(checkpoint: KeptCheckpoint, parent: Run, run: Run) -> None:
    """Put the checkpoint and the curve of `parent` into the folder of the new `run`.

    Files of a checkpoint never change, so both runs have the same ones; they are copied where the
    file system does not link them. The job verifies the checkpoint once more before it uses it.
    """
    checkpoints = run.checkpoints
    checkpoints.mkdir()
    shutil.copytree(
        checkpoint.folder, checkpoints / checkpoint.folder.name, copy_function=_link_or_copy
    )
    sync_tree(checkpoints)
    replace_file(checkpoints / POINTER, f"{checkpoint.folder.name}\n")
    replace_file(run.metrics, curve_until(parent.metrics, checkpoint.step))
    for name in ("source.diff", "project.diff"):
        if (parent.folder / name).is_file() and not (run.folder / name).exists():
            shutil.copyfile(parent.folder / name, run.folder / name)
            (run.folder / name).chmod(0o444)


def curve_until(metrics: Path, step: int) -> str:
    """The lines of a metrics.jsonl up to `step`; what is no line of a run is left out."""
    kept = []
    try:
        for line in metric_lines(metrics):
            if line is not None and line.step <= step:
                time = {} if line.at is None else {"time": line.at}
                kept.append(json.dumps({**time, "step": line.step, **line.values}) + "\n")
    except FileNotFoundError:
        return ""
    return "".join(kept)


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another file system, or another owner's file where links to it are refused
        shutil.copyfile(source, target)
    return target
