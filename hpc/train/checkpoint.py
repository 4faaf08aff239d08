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
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from hpc.jobs.run.checkpoints import scores
from hpc.jobs.run.curve import read_curve
from hpc.jobs.run.elastic import CheckpointMisfit, ElasticFit, Layout, fits
from hpc.jobs.run.pins import pinned_steps
from hpc.jobs.run.stored import confirmed_steps, notes_folder
from hpc.jobs.spec.config import RunConfig
from hpc.train import manifest, randomness, universal
from hpc.train.distributed import World
from hpc.train.engine import base_optimizer, whole_weights
from hpc.train.errors import CheckpointError
from hpc.train.retention import Retention, removable
from hpc.train.storage.fetch import fetch_checkpoint, stored_steps
from hpc.train.storage.store import CheckpointStore, StoreFault
from serving.artifact.durable import replace_file, sync_path, sync_tree

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
    way: ElasticFit
    same_ranks: bool = True


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run, in `folder`, and which of them stay."""

    folder: Path
    retention: Retention
    spec_digest: str
    protected: frozenset[int] = frozenset()
    """Steps whose checkpoints stay: what this attempt began from."""
    store: CheckpointStore | None = None
    """Holds copies of them under `folder`'s run; None for no store."""

    @property
    def run(self) -> str:
        """Name of the run that they are of."""
        return self.folder.parent.name

    def target(self, step: int) -> Path:
        """The folder of the checkpoint of a step, whether it is there or not."""
        return self.folder / f"{step:08d}"

    def staging(self, step: int) -> Path:
        """The folder in which the ranks write the checkpoint of a step."""
        return self.folder / f"{STAGING}{step}"

    def prepare(self, staging: Path, world: World) -> None:
        """Make an empty `staging`, the only one; a collective call, which raises no OSError.

        Where it cannot be made, writing into it fails on every rank.
        """
        if world.leads:
            for left in self.folder.glob(f"{STAGING}*"):  # of an attempt that was killed
                shutil.rmtree(left, ignore_errors=True)
            with suppress(OSError):
                staging.mkdir(parents=True)
        world.barrier()

    def publish(self, staging: Path, step: int, layout: Layout) -> None:
        """Seal what all ranks have written, give it its name, and point to it. Raises OSError."""
        manifest.seal_checkpoint(staging, step, layout.world_size, self.spec_digest, layout)
        # Written anew it is copied anew: the store's copy of this step may be bad, too.
        if (notes := notes_folder(self.folder, step)).exists():
            shutil.rmtree(notes)
        self._put_in_place(staging, step)

    def _put_in_place(self, staging: Path, step: int) -> None:
        target = self.target(step)
        if target.exists():  # it did not verify, so the run came to this step a second time
            self._remove(target)
        staging.rename(target)
        sync_path(self.folder)
        replace_file(self.folder / POINTER, f"{target.name}\n")

    def start(self, run: RunConfig, world: World) -> Start:
        """The newest good checkpoint and the way on from it; a collective call.

        Raises `CheckpointError` where this job's ranks, ZeRO stage or micro-batches do not go on
        from it: a run that has one never begins again from nothing.
        """
        step = world.from_leader(self.newest() if world.leads else 0)
        if step == 0:
            return Start(0, None, ElasticFit(run.gradient_accumulation_steps, False, ""))
        folder = self.target(step)
        found = manifest.read_manifest(folder)
        if found.layout is not None:
            try:
                way = fits(found.layout, world.size, run.zero_stage, run.micro_batch_size)
            except CheckpointMisfit as error:
                raise CheckpointError(f"{folder}: {error}.") from None
        elif found.world_size == world.size:
            way = ElasticFit(run.gradient_accumulation_steps, False, "")
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
            randomness.restore_random_state(start.folder / random_file(world.rank))
        else:
            randomness.reseed_generators(seed, start.step, world.rank, world.size)
        return start.step

    def _load_universal(self, engine: Any, world: World, folder: Path) -> None:
        """Load `folder` through its universal form, made here if need be, and compare the weights.

        DeepSpeed loads weights and moments. Buffers come from the whole weights, and the groups'
        settings from the run's config, as at every start.
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
        groups = engine.optimizer.param_groups
        # ZeRO-3 would give every group the settings of the first: decay to vectors, too.
        settings = [{k: v for k, v in group.items() if k != "params"} for group in groups]
        engine.load_checkpoint(str(universal.universal_folder(folder)), tag=PARTS)
        for group, before in zip(engine.optimizer.param_groups, settings, strict=True):
            group.update(before)
        for state in base_optimizer(engine).state.values():
            if isinstance(state.get("step"), Tensor):  # one for all in ZeRO-3: it would count twice
                state["step"] = state["step"].clone()
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
        """The step of the newest checkpoint that verifies, 0 for none; logs others' faults.

        One that only the store has whole is taken from there into `folder`. Raises
        `CheckpointError` where that cannot be, and the run would lose all of its steps.
        """
        here, stored = set(self.steps()), self._stored_steps()
        for step in sorted(here | (stored or set()), reverse=True):
            if step in here:
                fault = manifest.checkpoint_fault(self.target(step))
                if fault is None:
                    return step
                log.warning("checkpoint %08d is not used: %s", step, fault)
            if stored and step in stored and self._take_from_store(step):
                return step
        if stored is None and (copied := confirmed_steps(self.folder)):
            raise CheckpointError(
                f"the checkpoint of step {copied[-1]} is in the store {self._address}, which is "
                f"away, and {self.folder} has none that is whole. Resume when the store is back: "
                "the run would begin again from nothing."
            )
        return 0

    @property
    def _address(self) -> str:
        return self.store.address if self.store else ""

    def _stored_steps(self) -> set[int] | None:
        """The steps in the store, whole or not; None for a store that is away."""
        if self.store is None:
            return set()
        try:
            return stored_steps(self.store, self.run)
        except StoreFault as error:
            log.warning(
                "checkpoint store %s is away: %s. The run goes on from what is in %s",
                *(self._address, error, self.folder),
            )
            return None

    def _take_from_store(self, step: int) -> bool:
        """Put the store's copy of a checkpoint into `folder`; False, and logged, without one."""
        assert self.store is not None
        staging = self.staging(step)
        shutil.rmtree(staging, ignore_errors=True)
        try:
            fault = fetch_checkpoint(self.store, self.run, step, staging)
            if fault is None:
                sync_tree(staging)
                self._put_in_place(staging, step)
        except StoreFault as error:
            fault = str(error)
        except OSError as error:
            raise CheckpointError(
                f"the checkpoint of step {step} is in the store {self._address} and cannot be "
                f"written to {self.folder}: {error.strerror}. Make room, and resume the run."
            ) from error
        if fault is None:
            log.info("checkpoint %08d was taken from %s", step, self._address)
            return True
        shutil.rmtree(staging, ignore_errors=True)
        log.warning("checkpoint %08d in %s is not used: %s", step, self._address, fault)
        return False

    def retire(self, newest: int, copied: int | None = None) -> None:
        """Remove what need not stay, now that the checkpoint of step `newest` is durable.

        With a store, `copied` is the newest that it has whole: what is newer than that stays. What
        cannot be removed stays, with a line in the log.
        """
        try:
            for step in self.removable_of(self.steps(), newest):
                if copied is None or step > newest or step <= copied:
                    self._remove(self.target(step))
        except OSError as error:
            log.warning("older checkpoints could not be removed: %s", error)

    def removable_of(self, steps: Collection[int], newest: int) -> list[int]:
        """The steps that need not stay, of `steps`, once that of `newest` is durable.

        Raises OSError where it cannot be seen what is pinned.
        """
        protected = {*self.protected, *pinned_steps(self.folder)}
        return removable(steps, newest, self.retention, self._scores(), protected)

    def staying(self, newest: int) -> set[int]:
        """The steps of the checkpoints in `folder` that stay, up to `newest`. Raises OSError."""
        here = self.steps()
        return {step for step in here if step <= newest} - set(self.removable_of(here, newest))

    def steps(self) -> list[int]:
        """The steps of the checkpoints in `folder`, good or not."""
        return [int(folder.name) for folder in self._all()]

    def _scores(self) -> Mapping[int, float]:
        """The value of the run's main metric by evaluated step, the highest being the best."""
        if not self.retention.best:
            return {}
        return scores(read_curve(self.folder.parent / "metrics.jsonl"))

    def _remove(self, folder: Path) -> None:
        """Remove a checkpoint and what was made of it."""
        shutil.rmtree(universal.universal_folder(folder), ignore_errors=True)
        (folder / manifest.FILE).unlink(missing_ok=True)  # half removed, it must not verify
        shutil.rmtree(folder)

    def _all(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return [item for item in self.folder.iterdir() if item.is_dir() and item.name.isdigit()]


def retention(run: RunConfig) -> Retention:
    """The checkpoints that stay, as the run's config has it."""
    return Retention(run.keep_checkpoints, run.keep_every, run.keep_best)


def random_file(rank: int) -> str:
    return f"random-{rank:05d}.json"
