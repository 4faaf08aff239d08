"""DeepSpeed's state of one rank on its way to files: written at once, or copied to write later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from hpc.train.host_copy import host_copy

WRITE_FAULTS = (OSError, SafetensorError)
"""Errors of writing tensors: of torch and of safetensors."""


class StateFiles:
    """Takes the place of DeepSpeed's checkpoint engine for one save, which then never raises.

    DeepSpeed writes between barriers, in which the other ranks would wait for one that failed. So
    the first fault is kept here, and the ranks agree on it afterwards.
    """

    def __init__(self, own: Any, later: bool) -> None:
        self._own, self._later = own, later
        self._copies: list[tuple[Path, Any]] = []
        self.fault: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)  # all that is not about writing

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Called by DeepSpeed on rank 0; the folders are made by `save` and `write`."""

    def save(self, state_dict: Any, path: str) -> None:
        """Called by DeepSpeed for each file of this rank."""
        if self._later:
            self._copies.append((Path(path), host_copy(state_dict)))
        elif self.fault is None:
            try:
                _write_state(Path(path), state_dict)
            except OSError as error:
                self.fault = error

    def write(self) -> None:
        """Write what was copied. Raises the fault of a write, also one that was before."""
        if self.fault is not None:
            raise self.fault
        while self._copies:
            _write_state(*self._copies.pop(0))


def take_state(engine: Any, folder: Path, tag: str, later: bool) -> StateFiles:
    """DeepSpeed's state of this rank for `folder`/`tag`; a collective call, raises no OSError.

    With `later` nothing is written yet, and the training that goes on changes nothing of it.
    """
    files = StateFiles(engine.checkpoint_engine, later)
    with _standing_in(engine, files):
        engine.save_checkpoint(str(folder), tag=tag, save_latest=False)
    return files


@contextmanager
def _standing_in(engine: Any, files: StateFiles) -> Iterator[None]:
    own = engine.checkpoint_engine
    engine.checkpoint_engine = files
    # It would copy a script that puts whole weights together; model.safetensors has them.
    engine._copy_recovery_script = lambda _: None
    try:
        yield
    finally:
        engine.checkpoint_engine = own
        del engine._copy_recovery_script


def _write_state(path: Path, state: Any) -> None:
    """Write one file of DeepSpeed's. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:  # ours, so that a failed one is closed and its room is free
        try:
            torch.save(state, file)
        except RuntimeError as error:  # of torch's archive, which was not written to its end
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
