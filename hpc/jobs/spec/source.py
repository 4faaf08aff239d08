"""Source trees: the files of Lockgate and of a project as they stand, to be copied at submit.

Edits that are not committed are part of them; files that git ignores are not.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from conf.project import MARKER, Project
from hpc.jobs.errors import UsageError
from hpc.jobs.spec.job_spec import Source
from serving.artifact.digest import file_sha256, pairs_digest

PARTS = ("hpc", "kernels", "serving", "conf", "pyproject.toml")
"""Lockgate's own packages and what its tools read of them."""
PROJECT_LIMIT_BYTES = 64 << 20
"""Size of a project's files, which every new snapshot copies; data does not belong among them."""
UNWANTED_FOLDERS = ("__pycache__", "node_modules", "venv")


@dataclass(frozen=True)
class SourceTree:
    """Files that would be copied, and how they differ from HEAD."""

    root: Path
    files: tuple[str, ...]  # posix paths relative to root, sorted
    source: Source
    diff: str  # `git diff HEAD` of these files; empty where there is no git


def read_checkout(root: Path) -> SourceTree:
    """List and digest Lockgate's source under `root`: a checkout, or where a wheel put it."""
    top = _git(root, "rev-parse", "--show-toplevel")
    if top and Path(top.strip()).resolve() == root.resolve():
        listed = _listed(root, PARTS)
        if listed:
            return _from_git(root, listed, PARTS)
    return _without_git(root, _walk(root, PARTS), _installed_version())


def read_project_tree(project: Project) -> SourceTree:
    """List and digest the files of a project that travel with a run.

    They are those that git does not ignore, also where the project is a folder of a larger
    repository; without git, all but hidden folders, virtual environments and compiled Python.
    Raises `UsageError` for more than `PROJECT_LIMIT_BYTES`, for a link that leads out of the
    project and for a repository inside it, whose files would not travel.
    """
    root = project.root
    listed = _listed(root, ["."])
    in_git = MARKER in listed  # an ignored folder of another repository is not in that one
    names = listed if in_git else _walk(root, ["."])
    for name in names:
        _refuse_link(root, name)
    tree = _from_git(root, names, ["."]) if in_git else _without_git(root, names, None)
    _refuse_size(tree, in_git)
    return tree


def _from_git(root: Path, listed: Sequence[str], parts: Sequence[str]) -> SourceTree:
    files = [name for name in listed if (root / name).is_file()]  # not the deleted ones
    commit = (_git(root, "rev-parse", "--verify", "-q", "HEAD") or "").strip() or None
    diff = _git(root, "diff", "HEAD", "--relative", "--", *parts) if commit else ""
    untracked = commit and _git(root, "ls-files", "-o", "--exclude-standard", "--", *parts)
    source = Source(_digest(root, files), commit, dirty=bool(diff or untracked))
    return SourceTree(root, tuple(files), source, diff or "")


def _without_git(root: Path, files: Sequence[str], installed: str | None) -> SourceTree:
    source = Source(_digest(root, files), None, dirty=False, version=installed)
    return SourceTree(root, tuple(files), source, "")


def _digest(root: Path, files: Sequence[str]) -> str:
    # A link to another file of the project counts, and is copied, as the file that it leads to.
    return pairs_digest((name, file_sha256((root / name).resolve())) for name in files)


def _listed(root: Path, parts: Sequence[str]) -> list[str]:
    """Tracked and new files that git does not ignore, sorted; none where there is no git."""
    listed = _git(root, "ls-files", "-co", "--exclude-standard", "-z", "--", *parts)
    return sorted({name for name in (listed or "").split("\0") if name})


def _walk(root: Path, parts: Sequence[str]) -> list[str]:
    """Every file of `parts` and every link to a folder, sorted; nothing hidden or compiled."""
    found = [root / part for part in parts if (root / part).is_file()]
    for part in parts:
        found += _walk_folder(root / part)
    return sorted(path.relative_to(root).as_posix() for path in found)


def _walk_folder(folder: Path) -> Iterator[Path]:
    for where, folders, files in os.walk(folder):
        here = Path(where)
        yield from (here / name for name in folders if (here / name).is_symlink())
        folders[:] = [name for name in folders if _is_wanted(here / name)]
        yield from (here / name for name in files if not name.endswith(".pyc"))


def _is_wanted(folder: Path) -> bool:
    name = folder.name
    hidden = name.startswith(".") or name in UNWANTED_FOLDERS or name.endswith(".egg-info")
    return not hidden and not (folder / "pyvenv.cfg").is_file() and not folder.is_symlink()


def _refuse_link(root: Path, name: str) -> None:
    path = root / name
    if path.is_symlink() and not path.resolve().is_relative_to(root):
        raise UsageError(
            f"{path} is a link to {path.resolve()}, outside the project; a run takes along what is "
            "in the project's folder only. Put the file itself there, or list the link in "
            ".gitignore."
        )
    if path.is_dir():
        what = "a link to a folder" if path.is_symlink() else "a git repository of its own"
        raise UsageError(
            f"{path} is {what}, and its files would not travel with a run. Put the files "
            "themselves there, or list it in .gitignore."
        )


def _refuse_size(tree: SourceTree, in_git: bool) -> None:
    sizes = {name: (tree.root / name).stat().st_size for name in tree.files}
    total = sum(sizes.values())
    if total <= PROJECT_LIMIT_BYTES:
        return
    largest = sorted(sizes, key=lambda name: sizes[name], reverse=True)[:5]
    shown = ", ".join(f"{name} ({sizes[name] / 2**20:.1f} MiB)" for name in largest)
    how = "List them in .gitignore" if in_git else "Run `git init` and list them in .gitignore"
    raise UsageError(
        f"the files of {tree.root} that would travel with a run have {total / 2**20:.0f} MiB, and "
        f"{PROJECT_LIMIT_BYTES >> 20} MiB are the most. The largest: {shown}. {how}, or put them "
        "outside the project."
    )


def _installed_version() -> str | None:
    try:
        return version("lockgate")
    except PackageNotFoundError:  # a copy of the source that was never installed
        return None


def _git(root: Path, *arguments: str) -> str | None:
    """The output of git; None where it is missing or fails. Never writes into the checkout."""
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
