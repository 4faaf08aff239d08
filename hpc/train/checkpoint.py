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

from safetensors.torch import load_file, save_file

from hpc.jobs.run.elastic import CheckpointMisfit, Continuation, Layout, fits
from hpc.jobs.spec.config import RunConfig
from hpc.train import manifest, randomness, universal
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
class Start:
    """The checkpoint from which an attempt goes on, and how; step 0 without one."""

    step: int
    folder: Path | None
    way: Continuation
    same_ranks: bool = True


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run, in `folder`; `keep` of the newest stay."""

    folder: Path
    keep: int
    spec_digest: str

    def save(self, engine: Any, world: World, step: int, layout: Layout) -> Path:
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
            manifest.seal_checkpoint(staging, step, world.size, self.spec_digest, layout)
            self._publish(staging, target)
            self._retire(newest=step)
        world.barrier()
        return target

    def start(self, run: RunConfig, world: World) -> Start:
        """The newest good checkpoint and the way on from it; a collective call.

        Raises `CheckpointError` where this job's ranks, ZeRO stage or micro-batches do not go on
        from it: a run that has one never begins again from nothing.
        """
        step = world.from_leader(self.newest() if world.leads else 0)
        if step == 0:
            return Start(0, None, Continuation(run.gradient_accumulation_steps, False, ""))
        folder = self.folder / f"{step:08d}"
        found = manifest.read_manifest(folder)
        if found.layout is not None:
            try:
                way = fits(found.layout, world.size, run.zero_stage, run.micro_batch_size)
            except CheckpointMisfit as error:
                raise CheckpointError(f"{folder}: {error}.") from None
        elif found.world_size == world.size:
            way = Continuation(run.gradient_accumulation_steps, False, "")
        else:
            raise CheckpointError(
                f"{folder} was written by {found.world_size} ranks and this job has {world.size}, "
                "and it is older than the record that would allow it. Resume with as many ranks "
                "as before, or start a new run."
            )
        if way.sentence and world.leads:
            log.info("checkpoint %s goes on with %s", folder.name, way.sentence)
        return Start(step, folder, way, same_ranks=found.world_size == world.size)

    def resume(self, engine: Any, world: World, start: Start, seed: int) -> int:
        """Load the checkpoint of `start`; a collective call. Returns its step, 0 without one.

        Among as many ranks as before each goes on with its own random numbers; among others each
        is seeded anew. Raises `CheckpointError` for one that could not be converted or loaded.
        """
        if start.folder is None:
            return 0
        if start.way.convert:
            self._load_universal(engine, world, start.folder)
        else:
            engine.load_checkpoint(str(start.folder), tag=PARTS)
        if start.same_ranks:
            randomness.restore_random_state(start.folder / _random_file(world.rank))
        else:
            randomness.reseed_generators(seed, start.step, world.rank, world.size)
        return start.step

    def _load_universal(self, engine: Any, world: World, folder: Path) -> None:
        """Load `folder` through its universal form, made here if need be, and compare the weights.

        DeepSpeed loads weights and moments, no buffers; those come from the whole weights.
        """
        fault: Exception | None = None
        if world.leads:
            try:
                universal.convert(folder, PARTS)
            except Exception as error:  # noqa: BLE001  the other ranks wait for its end
                fault = error
        failed = world.from_leader(int(fault is not None))
        if fault is not None:
            raise fault
        if failed:
            raise CheckpointError(f"rank 0 could not convert {folder} for other ranks.")
        engine.load_checkpoint(str(universal.universal_folder(folder)), tag=PARTS)
        saved = load_file(folder / WEIGHTS)
        for name, buffer in engine.module.named_buffers():
            if name in saved:
                buffer.copy_(saved[name])
        loaded = whole_weights(engine)
        different = [name for name, weight in loaded.items() if not weight.equal(saved[name])]
        if world.total([float(len(different))])[0]:
            raise CheckpointError(
                f"{folder} was loaded by DeepSpeed with other weights than were saved: "
                f"{', '.join(different[:3]) or 'see rank 0'}. Go on with as many ranks and the "
                "ZeRO stage of before."
            )

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
            self._remove(target)
        staging.rename(target)
        sync_path(self.folder)
        replace_file(self.folder / POINTER, f"{target.name}\n")

    def _retire(self, newest: int) -> None:
        """Remove all but the newest; those after `newest` are of a past that was not good."""
        later = [folder for folder in self._all() if int(folder.name) > newest]
        earlier = sorted(folder for folder in self._all() if int(folder.name) <= newest)
        for folder in later + earlier[: -self.keep]:
            self._remove(folder)

    def _remove(self, folder: Path) -> None:
        """Remove a checkpoint and what was made of it."""
        shutil.rmtree(universal.universal_folder(folder), ignore_errors=True)
        (folder / manifest.FILE).unlink(missing_ok=True)  # half removed, it must not verify
        shutil.rmtree(folder)

    def _all(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return [item for item in self.folder.iterdir() if item.is_dir() and item.name.isdigit()]


def _random_file(rank: int) -> str:
    return f"random-{rank:05d}.json"
