"""Source snapshots: the code of a run, copied at submit into a folder named by its content.

Edits that are not committed are part of it; files that git ignores are not. A job runs from its
snapshot, so editing the checkout after submit changes nothing.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hpc.jobs.errors import SpecMoved
from hpc.jobs.spec import Source
from serving.artifact.digest import file_sha256, pairs_digest, short, tree_digest
from serving.artifact.verify import Refused

PARTS = ("hpc", "kernels", "serving", "conf", "pyproject.toml")


@dataclass(frozen=True)
class Checkout:
    """The source as it stands: what would be copied, and how it differs from HEAD."""

    root: Path
    files: tuple[str, ...]  # posix paths relative to root, sorted
    source: Source
    diff: str  # `git diff HEAD` of the parts; empty where there is no git


def read_checkout(root: Path) -> Checkout:
    """List and digest the source under `root`; writes nothing."""
    commit, diff, files = _from_git(root) or (None, "", _by_walking(root))
    digest = pairs_digest((name, file_sha256(root / name)) for name in files)
    untracked = bool(commit) and _git(root, "ls-files", "-o", "--exclude-standard", "--", *PARTS)
    source = Source(digest=digest, commit=commit, dirty=bool(diff or untracked))
    return Checkout(root=root, files=tuple(files), source=source, diff=diff)


def take(checkout: Checkout, snapshots: Path) -> Path:
    """Copy the checkout to `snapshots/<digest>`, read-only, and return that folder.

    An existing snapshot is reused only if its content still has the digest; one that was changed is
    put aside and taken anew. Raises `SpecMoved` when the source changes while it is copied.
    """
    digest = checkout.source.digest
    final = snapshots / digest
    if _intact(final, digest):
        return final
    snapshots.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=snapshots, prefix=f".{short(digest)}-"))
    try:
        for name in checkout.files:
            target = staging / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(checkout.root / name, target)
        if tree_digest(staging, exclude=()) != digest:
            raise SpecMoved(
                f"the source under {checkout.root} changed while it was copied. Submit again."
            )
        _protect(staging)
        _publish(staging, final, digest)
    finally:
        discard(staging)
    return final


def verify(snapshots: Path, source: Source) -> Path:
    """The folder of `source`, checked byte for byte; raises `SpecMoved` when it is not that."""
    folder = snapshots / source.digest
    if not _intact(folder, source.digest):
        raise SpecMoved(
            f"the source snapshot {folder} is missing or was changed after submit. Nothing was "
            "run; submit again: lockgate train takes a new snapshot."
        )
    return folder


def discard(folder: Path) -> None:
    """Remove a folder, read-only or not; nothing happens where there is none."""
    if not folder.is_dir():
        return
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(folder)


def _intact(folder: Path, digest: str) -> bool:
    try:
        return tree_digest(folder, exclude=()) == digest
    except (OSError, Refused):
        return False


def _protect(folder: Path) -> None:
    for path in folder.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    folder.chmod(0o555)


def _publish(staging: Path, final: Path, digest: str) -> None:
    if final.is_dir() and not _intact(final, digest):
        aside = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{short(digest)}-changed-"))
        final.rename(aside / final.name)
    try:
        staging.rename(final)
    except OSError:
        # Somebody who submits the same source at the same moment was first.
        if not _intact(final, digest):
            raise


def _from_git(root: Path) -> tuple[str | None, str, list[str]] | None:
    """(HEAD, diff, files); None where `root` is not the top of a git checkout."""
    top = _git(root, "rev-parse", "--show-toplevel")
    if not top or Path(top.strip()).resolve() != root.resolve():
        return None
    listed = _git(root, "ls-files", "-co", "--exclude-standard", "-z", "--", *PARTS)
    if listed is None:
        return None
    names = {name for name in listed.split("\0") if name}
    files = sorted(name for name in names if (root / name).is_file())  # not the deleted ones
    head = (_git(root, "rev-parse", "--verify", "-q", "HEAD") or "").strip() or None
    diff = _git(root, "diff", "HEAD", "--", *PARTS) if head else ""
    return head, diff or "", files


def _git(root: Path, *arguments: str) -> str | None:
    """What git answers; None where it is missing or says no. Never writes into the checkout."""
    # The training user reads a checkout that somebody else owns; reading is all it does.
    command = ["git", "-c", "safe.directory=*", "-C", str(root), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="surrogateescape", check=False,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
        )  # fmt: skip
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def _by_walking(root: Path) -> list[str]:
    """Every file of the packages, where they were installed without git."""
    found = []
    for part in PARTS:
        path = root / part
        inside = path.rglob("*") if path.is_dir() else [path]
        found += [item for item in inside if item.is_file() and item.suffix != ".pyc"]
    return sorted(item.relative_to(root).as_posix() for item in found)
