"""Source snapshots: the code of a run, copied at submit into a folder named by its content.

Lockgate's packages are at its top, a project's files under `project/`. A job runs from its
snapshot, so editing the checkout or the project after submit changes nothing.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from conf import find_project, repo_root
from hpc.jobs.errors import SpecChanged
from hpc.jobs.spec.job_spec import JobSpec, Source
from hpc.jobs.spec.source import SourceTree, read_checkout, read_project_tree
from serving.artifact.digest import bytes_sha256, file_sha256, pairs_digest, short
from serving.artifact.verify import Refused, plain_files

PROJECT = "project"


@dataclass(frozen=True)
class Code:
    """The source of one run as it stands: Lockgate's, and the project's if there is one."""

    checkout: SourceTree
    project: SourceTree | None


@dataclass(frozen=True)
class SourceSnapshot:
    """The folder that a run's code is in, or will be; `project` is inside it."""

    folder: Path
    project: Path | None


def read_code() -> Code:
    """Lockgate's source and that of the project that this command works in; writes nothing."""
    project = find_project()
    return Code(read_checkout(repo_root()), read_project_tree(project) if project else None)


def snapshot_of(snapshots: Path, source: Source, project: Source | None) -> SourceSnapshot:
    """The snapshot of these two sources; its folder need not be there yet."""
    if project is None:
        return SourceSnapshot(snapshots / source.digest, None)
    name = bytes_sha256(f"{source.digest} {project.digest}".encode())
    return SourceSnapshot(snapshots / name, snapshots / name / PROJECT)


def take_snapshot(code: Code, snapshots: Path) -> SourceSnapshot:
    """Copy the code to its folder in `snapshots`, read-only.

    An existing snapshot is reused only if its content still has its digests; one that was changed
    is put aside and taken anew. Raises `SpecChanged` when the source changes while it is copied.
    """
    source, project = code.checkout.source, code.project.source if code.project else None
    final = snapshot_of(snapshots, source, project)
    if _is_intact(final.folder, source, project):
        return final
    snapshots.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=snapshots, prefix=f".{short(final.folder.name)}-"))
    try:
        _copy(code.checkout, staging)
        if code.project:
            _copy(code.project, staging / PROJECT)
        if not _is_intact(staging, source, project):
            roots = [str(tree.root) for tree in (code.checkout, code.project) if tree]
            raise SpecChanged(
                f"the source under {' or '.join(roots)} changed while it was copied. Submit again."
            )
        _protect(staging)
        _publish(staging, final.folder, source, project)
    finally:
        discard(staging)
    return final


def check_snapshot(snapshots: Path, spec: JobSpec) -> SourceSnapshot:
    """The snapshot of `spec`, checked byte for byte; raises `SpecChanged` when it is not that."""
    found = snapshot_of(snapshots, spec.source, spec.project)
    if not _is_intact(found.folder, spec.source, spec.project):
        raise SpecChanged(
            f"the source snapshot {found.folder} is missing or was changed after submit. Nothing "
            "was run; submit again: lockgate train takes a new snapshot."
        )
    return found


def discard(folder: Path) -> None:
    """Remove a folder, read-only or not; nothing happens where there is none."""
    if not folder.is_dir():
        return
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(folder)


def _copy(tree: SourceTree, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name in tree.files:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(tree.root / name, target)


def _is_intact(folder: Path, source: Source, project: Source | None) -> bool:
    """True if the folder holds exactly the files of both sources."""
    inside = f"{PROJECT}/"
    checkout, others = [], []
    try:
        for name, path in plain_files(folder):
            if project is not None and name.startswith(inside):
                others.append((name.removeprefix(inside), file_sha256(path)))
            else:
                checkout.append((name, file_sha256(path)))
    except (OSError, Refused):
        return False
    if project is not None and pairs_digest(others) != project.digest:
        return False
    return pairs_digest(checkout) == source.digest


def _protect(folder: Path) -> None:
    for path in folder.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    folder.chmod(0o555)


def _publish(staging: Path, final: Path, source: Source, project: Source | None) -> None:
    if final.is_dir() and not _is_intact(final, source, project):
        aside = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{short(final.name)}-changed-"))
        final.rename(aside / final.name)
    try:
        staging.rename(final)
    except OSError:
        # Somebody who submits the same source at the same moment was first.
        if not _is_intact(final, source, project):
            raise
