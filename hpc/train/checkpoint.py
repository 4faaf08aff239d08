"""Checkpoints that can be trusted: collective, staged, checksummed, manifest last, pointer after.

Saving: all ranks write into a staging folder (DeepSpeed's parts, each rank's random state), meet
at a barrier, and rank 0 seals the folder with a manifest, renames it and moves the pointer. A job
killed anywhere in between leaves the previous checkpoint as the newest.

Loading: the newest checkpoint that verifies. DeepSpeed's own `latest` file is not used: it is
written before the other ranks are done.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from hpc.train import manifest, randomness
from hpc.train.distributed import World
from hpc.train.engine import whole_weights
from hpc.train.errors import CheckpointError
from serving.artifact.durable import replace_file, sync_path

log = logging.getLogger(__name__)

POINTER = "latest"
STAGING = ".staging-"
PARTS = "deepspeed"  # DeepSpeed's tag: the folder of its files
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run, in `folder`; `keep` of the newest stay."""

    folder: Path
    keep: int
    spec_digest: str

    def save(self, engine: Any, world: World, step: int) -> Path:
        """Write the state after `step` steps; a collective call. Returns the checkpoint."""
        staging = self.folder / f"{STAGING}{step}"
        if world.leads:
            for left in self.folder.glob(f"{STAGING}*"):  # of an attempt that was killed
                shutil.rmtree(left)
            staging.mkdir(parents=True)
        world.barrier()
        engine.save_checkpoint(str(staging), tag=PARTS, save_latest=False)
        randomness.write_random_state(staging / _random_file(world.rank))
        weights = whole_weights(engine)
        if world.leads:
            save_file(weights, staging / WEIGHTS)
        world.barrier()
        target = self.folder / f"{step:08d}"
        if world.leads:
            manifest.seal_checkpoint(staging, step, world.size, self.spec_digest)
            self._publish(staging, target)
            self._retire(newest=step)
        world.barrier()
        return target

    def resume(self, engine: Any, world: World) -> int:
        """Load the newest good checkpoint; a collective call. Returns its step, 0 without one.

        Raises `CheckpointError` for one of another world size: its parts do not fit these ranks.
        """
        step = world.from_leader(self.newest() if world.leads else 0)
        if step == 0:
            return 0
        source = self.folder / f"{step:08d}"
        written_by = manifest.read_manifest(source).world_size
        if written_by != world.size:
            raise CheckpointError(
                f"{source} was written by {written_by} ranks and this job has {world.size}. Resume "
                "with as many ranks as before, or start a new run."
            )
        engine.load_checkpoint(str(source), tag=PARTS)
        randomness.restore_random_state(source / _random_file(world.rank))
        return step

    def newest(self) -> int:
        """The step of the newest checkpoint that verifies, 0 for none; logs others' faults."""
        for folder in sorted(self._all(), reverse=True):
            fault = manifest.checkpoint_fault(folder)
            if fault is None:
                return int(folder.name)
            log.warning("checkpoint %s is not used: %s", folder.name, fault)
        return 0

    def _publish(self, staging: Path, target: Path) -> None:
        if target.exists():  # it did not verify, so the run came to this step a second time
            shutil.rmtree(target)
        staging.rename(target)
        sync_path(self.folder)
        replace_file(self.folder / POINTER, f"{target.name}\n")

    def _retire(self, newest: int) -> None:
        """Remove all but the newest; those after `newest` are of a past that was not good."""
        later = [folder for folder in self._all() if int(folder.name) > newest]
        earlier = sorted(folder for folder in self._all() if int(folder.name) <= newest)
        for folder in later + earlier[: -self.keep]:
            (folder / manifest.FILE).unlink(missing_ok=True)  # half removed, it must not verify
            shutil.rmtree(folder)

    def _all(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return [item for item in self.folder.iterdir() if item.is_dir() and item.name.isdigit()]


def _random_file(rank: int) -> str:
    return f"random-{rank:05d}.json"
