"""The newest whole checkpoint of a run that ended, out of its store, for a run that goes on."""

from __future__ import annotations

from hpc.jobs.run.folder import Run
from hpc.train.checkpoint import Checkpoints
from hpc.train.retention import Retention
from hpc.train.storage.store import open_checkpoint_store


def restore_newest(run: Run) -> int:
    """Put the newest whole checkpoint of `run` into its folder, if only its store has it.

    Returns its step, 0 for none. No job of the run may be there. Raises `CheckpointError`.
    """
    store = open_checkpoint_store(run.spec.config.checkpoint_store)
    folder = run.checkpoints
    return Checkpoints(folder, Retention(1), run.spec.digest, store=store).newest()
