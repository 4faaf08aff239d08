"""The store: signed, immutable versions as folders, `<store>/<model>/<N>/`.

A version appears by one rename of a complete, fsynced, read-only folder: a reader sees all of it or
nothing, also after a power cut. `.staging/` holds what is not yet a version; `.locks/` and
`reports/` belong to releases.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from conf.errors import MISTAKE, LockgateError
from serving.artifact.durable import replace_file, seal_tree, sync_path
from serving.artifact.manifest import Manifest, read_manifest
from serving.artifact.verify import APPROVAL, MANIFEST, SIGNATURE, safe_path

STAGING = ".staging"
REPORTS = "reports"
_NUMBER = re.compile(r"[1-9][0-9]*\Z")


class StoreError(LockgateError, ValueError):
    """The store cannot take a version; the message names it."""


class NotInStore(StoreError):
    """The store has no such model or version; the message has the nearest ones."""

    exit_code = MISTAKE


@dataclass(frozen=True)
class Package:
    """One version in the store."""

    path: Path
    manifest: Manifest


def models(store: Path) -> list[str]:
    """The models that have at least one version, sorted."""
    if not Path(store).is_dir():
        return []
    names = (path.name for path in Path(store).iterdir() if path.is_dir())
    candidates = [name for name in names if safe_path(name) and name != REPORTS]
    return sorted(name for name in candidates if versions(store, name))


def versions(store: Path, model: str) -> list[int]:
    """The versions of `model`, oldest first; none for a model that is not in the store."""
    folder = Path(store) / model
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if _NUMBER.match(path.name))
    return sorted(int(path.name) for path in found if (path / SIGNATURE).exists())


def get(store: Path, model: str, version: int | None = None) -> Package:
    """One version; the newest when `version` is None. Raises NotInStore with the nearest names.

    The files are not checked here: `verify.verify_package` does that.
    """
    have = versions(store, model) if safe_path(model) and "/" not in model else []
    if not have:
        known = models(store)
        near = get_close_matches(model, known, n=3, cutoff=0.4) or known
        hint = f"it has {', '.join(near)}" if near else "it has no versions yet: lockgate release"
        raise NotInStore(f"the store {store} has no model {model!r}; {hint}")
    wanted = have[-1] if version is None else version
    if wanted not in have:
        near_versions = sorted(have, key=lambda number: abs(number - wanted))[:3]
        hint = ", ".join(f"{model}/{number}" for number in sorted(near_versions))
        raise NotInStore(f"the store {store} has no {model}/{wanted}; nearest: {hint}")
    path = Path(store) / model / str(wanted)
    return Package(path, read_manifest(path))


def previous(store: Path, model: str, version: int) -> int | None:
    """The version to go back to from `version`: the one its manifest names, if still there."""
    marked = get(store, model, version).manifest.previous
    return marked if marked in versions(store, model) else None


def find_run(store: Path, model: str, run: str) -> Package | None:
    """The newest version that was made of `run`, if any."""
    for number in reversed(versions(store, model)):
        package = get(store, model, number)
        if package.manifest.lineage.run == run:
            return package
    return None


def stage(store: Path, name: str) -> Path:
    """An empty folder on the store's file system to prepare something in; remove it when done."""
    folder = Path(store) / STAGING / name
    if folder.exists():
        discard(folder)
    folder.mkdir(parents=True)
    return folder


def publish(store: Path, staged: Path, manifest: Manifest, signature: bytes) -> Path:
    """Turn a staged folder into the version its manifest names; returns the version's folder.

    Writes manifest and signature into `staged`, makes everything durable and read-only, then
    renames. Killed before the rename there is no version; after it, the version is whole. Raises
    StoreError when the version exists: versions are never replaced.
    """
    target = Path(store) / manifest.model / str(manifest.version)
    if target.exists():
        raise StoreError(f"{manifest.model}/{manifest.version} is already in {store}: unchanged")
    (staged / MANIFEST).write_bytes(manifest.to_bytes())
    (staged / SIGNATURE).write_bytes(signature)
    seal_tree(staged)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Moving a folder rewrites its "..", for which its owner needs the right to write in it.
    staged.chmod(0o755)
    staged.rename(target)
    target.chmod(0o555)
    sync_path(target.parent)
    sync_path(Path(store))
    return target


def add_approval(package: Path, signature: bytes) -> None:
    """Put an approver's signature into the version's folder `package`, in place of an older one.

    The one file of a version that comes after it; the manifest does not list it. Raises OSError.
    """
    package.chmod(0o755)
    try:
        replace_file(package / APPROVAL, signature, mode=0o444)
    finally:
        package.chmod(0o555)


def discard(folder: Path) -> None:
    """Remove a staged tree, read-only or not. A version is never given to this."""
    for root, _, _ in os.walk(folder):
        Path(root).chmod(0o755)
    shutil.rmtree(folder)
