"""Copies of a run's checkpoints in its store, made by a thread of each rank beside the steps.

Each rank copies the files that it wrote, reads them back, and leaves a note beside the checkpoint.
Once rank 0 has found a good note of every rank, it puts the manifest after them. The threads
exchange no messages for that: one that waits for the store holds up nobody.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hpc.jobs.run.files import read_run_file, utc_now, write_run_file
from hpc.jobs.run.stored import (
    CONFIRMED,
    PartFile,
    StoredFile,
    confirmed_steps,
    notes_folder,
)
from hpc.train import manifest
from hpc.train.checkpoint import Checkpoints
from hpc.train.storage.names import by_step, part_of, step_folder
from hpc.train.storage.store import CheckpointStore, StoreFault
from serving.artifact.digest import file_sha256

log = logging.getLogger(__name__)

BLOCK_BYTES = 1 << 20
POLL_SECONDS = 0.2
"""Between two looks of rank 0 for the other ranks' notes."""


class CopyAbandoned(Exception):
    """The attempt ends, and this copy with it."""


class DamagedCheckpoint(Exception):
    """A checkpoint in the run's own folder is not what was written, or is not there any more."""


@dataclass
class Copies:
    """The copies that one rank makes in one attempt; every rank gets the same offers."""

    checkpoints: Checkpoints
    store: CheckpointStore
    rank: int
    ranks: int
    confirmed_step: int = field(default=0, init=False)
    """Rank 0: of the newest checkpoint whose copy the store has whole; 0 for none."""
    _turn: int = field(default=0, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)
    _abandoned: bool = field(default=False, init=False)
    _away: bool = field(default=False, init=False)
    _damaged: set[int] = field(default_factory=set, init=False)

    @property
    def busy(self) -> bool:
        """True while the thread works on the last offer."""
        return self._thread is not None and self._thread.is_alive()

    def offer(self, steps: Sequence[int], newest: int) -> None:
        """Copy the checkpoints of `steps` in a thread; `newest` is the newest durable one.

        No rank may be busy.
        """
        self._thread = threading.Thread(
            target=self._run, args=(steps, newest), name="copies", daemon=True
        )
        self._thread.start()

    def forget_faults(self) -> None:
        """Remove this rank's notes on faults of earlier attempts, which counted their turns too."""
        for step in self.checkpoints.steps():
            note = read_run_file(PartFile, self._note_path(step, self.rank)).value
            if note is not None and note.fault is not None:
                self._note_path(step, self.rank).unlink(missing_ok=True)

    def wait(self, deadline: float, alive: Callable[[], None]) -> None:
        """Wait until nothing is being copied or time.monotonic() is `deadline`, calling `alive`."""
        while self.busy and time.monotonic() < deadline:
            assert self._thread is not None
            self._thread.join(POLL_SECONDS)
            alive()

    def abandon(self) -> None:
        """Let the thread end at its next file; waits for nothing."""
        self._abandoned = True

    def missing(self, newest: int) -> list[int]:
        """The steps that stay in the run's folder without a confirmed copy, the newest first."""
        staying = self.checkpoints.staying(newest) - self._damaged
        return [
            step
            for step in sorted(staying, reverse=True)
            if self._seal_of(step) is not None and not self._is_confirmed(step)
        ]

    def turn(self, steps: Sequence[int], newest: int) -> None:
        """Copy the checkpoints of `steps`, and remove copies that need not stay.

        A fault of the store is logged once, until the store is back.
        """
        self._turn += 1
        left = list(steps)
        try:
            if self.rank == 0:
                self._forget_lost_copies()
            while left:
                self._copy(left[0])
                step = left.pop(0)
                if self._away:
                    self._away = False
                    log.info("checkpoint store %s is back: step %d", self.store.address, step)
            if self.rank == 0 and 0 < newest <= self.confirmed_step:
                self._prune(newest)
        except StoreFault as error:
            self._leave_faults(left, error)
            if not self._away:
                self._away = True
                log.warning(
                    "checkpoint store %s does not take checkpoints: %s. They stay in %s; it is "
                    "tried again at each checkpoint, and at the end",
                    *(self.store.address, error, self.checkpoints.folder),
                )
        except OSError as error:  # of the run's own folder
            self._leave_faults(left, error)
            log.warning("checkpoints could not be copied: %s", error)

    def _run(self, steps: Sequence[int], newest: int) -> None:
        try:
            self.turn(steps, newest)
        except CopyAbandoned:
            return
        except Exception as error:
            self._leave_faults(steps, error)
            log.exception("checkpoints could not be copied; the run goes on")

    def _leave_faults(self, steps: Sequence[int], error: Exception) -> None:
        """Let rank 0, which waits for a note on each step, see that this rank has ended."""
        with suppress(OSError):
            for step in steps:
                self._leave_note(step, "", str(error))

    def _forget_lost_copies(self) -> None:
        """Drop the notes on copies that the store does not have any more; finds the newest one."""
        run = self.checkpoints.run
        stored = by_step(self.store.sizes(run), run)
        whole = [0]
        for step in confirmed_steps(self.checkpoints.folder):
            sealed = f"{step_folder(run, step)}/{manifest.FILE}" in stored.get(step, ())
            if sealed and self._is_confirmed(step):
                whole.append(step)
            elif not sealed or self._seal_of(step) is not None:  # gone there, or another one here
                (notes_folder(self.checkpoints.folder, step) / CONFIRMED).unlink()
        self.confirmed_step = max(whole)

    def _is_confirmed(self, step: int) -> bool:
        """True where there is a note on a copy, in this store, of the checkpoint that is here."""
        path = notes_folder(self.checkpoints.folder, step) / CONFIRMED
        note = read_run_file(StoredFile, path).value
        return (
            note is not None
            and note.address == self.store.address
            and note.manifest == self._seal_of(step)
        )

    def _seal_of(self, step: int) -> str | None:
        """sha256 of a checkpoint's manifest; None where there is none."""
        try:
            return file_sha256(self.checkpoints.target(step) / manifest.FILE)
        except OSError:
            return None

    def _copy(self, step: int) -> None:
        """Copy this rank's part of a checkpoint; rank 0 then waits for the others and seals it.

        One that is damaged, or that retention removed meanwhile, is left out. Raises `StoreFault`.
        """
        try:
            seal, files = self._seal_of(step), self._files_of(step)
            notes_folder(self.checkpoints.folder, step).mkdir(exist_ok=True)
            if not self._has_part(step, self.rank, seal):
                for name, one in part_of(files, self.rank, self.ranks).items():
                    self._copy_file(step, name, *one)
                self._leave_note(step, str(seal), None)
            if self.rank == 0:
                while not all(self._has_part(step, rank, seal) for rank in range(self.ranks)):
                    self._check_wanted()
                    time.sleep(POLL_SECONDS)
                self._seal(step, str(seal), files)
        except DamagedCheckpoint as error:
            self._damaged.add(step)
            self._leave_note(step, "", str(error), damaged=True)
            log.warning("checkpoint %08d is not copied: %s", step, error)

    def _files_of(self, step: int) -> Mapping[str, tuple[int, str]]:
        try:
            return manifest.read_manifest(self.checkpoints.target(step)).files
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DamagedCheckpoint(f"its manifest cannot be read: {error}") from None

    def _seal(self, step: int, seal: str, files: Mapping[str, tuple[int, str]]) -> None:
        """Put the manifest after all files, whose sizes are compared once more, and note that."""
        folder, notes = (
            step_folder(self.checkpoints.run, step),
            notes_folder(self.checkpoints.folder, step),
        )
        sizes = self.store.sizes(folder)
        for name, (size, _) in files.items():
            if sizes.get(f"{folder}/{name}") != size:
                shutil.rmtree(notes)  # every rank copies its part again
                raise StoreFault(f"{folder}/{name} is gone, or has another size")
        size = (self.checkpoints.target(step) / manifest.FILE).stat().st_size
        self._copy_file(step, manifest.FILE, size, seal)
        write_run_file(notes / CONFIRMED, StoredFile(self.store.address, seal, utc_now()))
        self.confirmed_step = max(self.confirmed_step, step)

    def _copy_file(self, step: int, name: str, size: int, sha256: str) -> None:
        """Copy one file and read it back. Raises `StoreFault` unless it is what was written."""
        self._check_wanted()
        source = self.checkpoints.target(step) / name
        stored = f"{step_folder(self.checkpoints.run, step)}/{name}"
        try:
            self.store.put(source, stored)
        except OSError as error:
            raise DamagedCheckpoint(f"{name} cannot be read: {error.strerror}") from None
        found, count = hashlib.sha256(), 0
        with self.store.open_file(stored) as content:
            while block := content.read(BLOCK_BYTES):
                found.update(block)
                count += len(block)
        if (count, found.hexdigest()) == (size, sha256):
            return
        try:
            damaged = file_sha256(source) != sha256
        except OSError:
            damaged = True
        if damaged:
            raise DamagedCheckpoint(f"{name} is not what was written (sha256 differs)")
        raise StoreFault(f"{stored} was read back with other content ({count} of {size} bytes)")

    def _check_wanted(self) -> None:
        if self._abandoned:
            raise CopyAbandoned

    def _leave_note(self, step: int, seal: str, fault: str | None, damaged: bool = False) -> None:
        path = self._note_path(step, self.rank)
        path.parent.mkdir(exist_ok=True)
        write_run_file(path, PartFile(seal, self._turn, fault, damaged))

    def _note_path(self, step: int, rank: int) -> Path:
        notes = notes_folder(self.checkpoints.folder, step)
        return notes / f"rank-{rank:05d}-of-{self.ranks:05d}.json"

    def _has_part(self, step: int, rank: int, seal: str | None) -> bool:
        """True once a rank has read its part back; raises what it met in this turn."""
        note = read_run_file(PartFile, self._note_path(step, rank)).value
        if note is None:
            return False
        if note.fault is not None:
            if rank != self.rank and note.turn == self._turn:
                kind = DamagedCheckpoint if note.damaged else StoreFault
                raise kind(f"rank {rank}: {note.fault}")
            return False
        return note.manifest == seal

    def _prune(self, newest: int) -> None:
        """Remove copies that retention has go, manifest first, and parts that nobody completes."""
        run = self.checkpoints.run
        stored = by_step(self.store.sizes(run), run)
        here = set(self.checkpoints.steps())
        gone = set(self.checkpoints.removable_of(stored, newest))
        for step, names in stored.items():
            seal = f"{step_folder(run, step)}/{manifest.FILE}"
            if step in gone or (seal not in names and step not in here):
                self._check_wanted()
                if seal in names:
                    self.store.remove([seal])
                self.store.remove([name for name in names if name != seal])
                shutil.rmtree(notes_folder(self.checkpoints.folder, step), ignore_errors=True)
