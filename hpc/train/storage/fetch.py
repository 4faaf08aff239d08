"""A checkpoint that is taken back out of a store, and compared with its manifest on the way."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from hpc.jobs.run.elastic import MANIFEST_LIMIT_BYTES
from hpc.train import manifest
from hpc.train.storage.names import by_step, outside_name, step_folder
from hpc.train.storage.store import CheckpointStore

BLOCK_BYTES = 1 << 20


def stored_steps(store: CheckpointStore, run: str) -> set[int]:
    """The steps of which a run's store holds anything. Raises `StoreFault`."""
    return set(by_step(store.sizes(run), run))


def fetch_checkpoint(store: CheckpointStore, run: str, step: int, folder: Path) -> str | None:
    """Write the stored checkpoint of `step` into `folder`, which is made.

    Returns its fault in words, None for one that is whole. Raises `StoreFault` for a store that is
    away, and OSError where `folder` cannot be written.
    """
    prefix = step_folder(run, step)
    if f"{prefix}/{manifest.FILE}" not in store.sizes(prefix):
        return f"{manifest.FILE} is missing: it was not copied to its end"
    folder.mkdir(parents=True)
    with store.open_file(f"{prefix}/{manifest.FILE}") as content:
        text = content.read(MANIFEST_LIMIT_BYTES + 1)
    (folder / manifest.FILE).write_bytes(text)
    try:
        if len(text) > MANIFEST_LIMIT_BYTES:
            raise ValueError("it is too large")
        found = manifest.read_manifest(folder)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        return f"its manifest cannot be read: {error}"
    if found.step != step:
        return f"its manifest is of step {found.step}"
    if (name := outside_name(found.files)) is not None:
        return f"its manifest names {json.dumps(name)}, which is no file of a checkpoint"
    there = store.sizes(prefix)
    for name, (size, _) in found.files.items():
        if there.get(f"{prefix}/{name}") != size:
            return f"{name} has {there.get(f'{prefix}/{name}', 'no')} bytes, not {size}"
    for name, (size, sha256) in found.files.items():
        if _fetch_file(store, f"{prefix}/{name}", folder / name, size) != sha256:
            return f"{name} is not what was written (sha256 differs)"
    return None


def _fetch_file(store: CheckpointStore, name: str, target: Path, size: int) -> str:
    """Write a stored file, at most `size` bytes of it, and return their sha256."""
    target.parent.mkdir(parents=True, exist_ok=True)
    found, left = hashlib.sha256(), size
    with store.open_file(name) as content, target.open("wb") as file:
        while left and (block := content.read(min(left, BLOCK_BYTES))):
            file.write(block)
            found.update(block)
            left -= len(block)
    return found.hexdigest()
