"""Source trees: the files of Lockgate and of a project as they stand, to be copied at submit.

Edits that are not committed are part of them; files that git ignores are not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from conf import repo_root
from conf.project import MARKER, NOT_IMPORTED, Project
from hpc.jobs.errors import UsageError
from hpc.jobs.spec import git
from hpc.jobs.spec.imported import ignored_imports, imports_from_elsewhere
from hpc.jobs.spec.job_spec import Source
from serving.artifact.digest import file_sha256, pairs_digest

PARTS = ("hpc", "kernels", "serving", "conf", "pyproject.toml")
"""Lockgate's own packages and what its tools read of them."""
PROJECT_LIMIT_BYTES = 64 << 20
"""Size of a project's files, which every new snapshot copies; data does not belong among them."""
MOST_LISTED = 10
UNWANTED_FOLDERS = ("__pycache__", "node_modules", "venv")


@dataclass(frozen=True)
class SourceTree:
    """Files that would be copied, and how they differ from HEAD."""

    root: Path
    files: tuple[str, ...]  # posix paths relative to root, sorted
    source: Source
    diff: bytes  # from HEAD to these files, for `git apply`; empty where there is no git


def read_checkout(root: Path) -> SourceTree:
    """List and digest Lockgate's source under `root`: a checkout, or where a wheel put it.

    Raises `UsageError` for files that would not travel although the code there needs them.
    """
    top = git.repository_root(root)
    listed = git.listed_files(root, PARTS) if top and top.resolve() == root.resolve() else []
    if not listed:
        names = _walk(root, PARTS)
        _refuse_missing(root, names, [])
        return _without_git(root, names, _installed_version())
    _refuse_missing(root, listed, git.ignored_files(root, PARTS))
    return _from_git(root, listed, PARTS)


def read_project_tree(project: Project) -> SourceTree:
    """List and digest the files of a project that travel with a run.

    They are those that git does not ignore, also where the project is a folder of a larger
    repository; without git, all but hidden folders, virtual environments and compiled Python.
    Raises `UsageError` for more than `PROJECT_LIMIT_BYTES`, and, with the list, for what would not
    travel although it seems to be the project's: links that lead out of it, repositories inside
    it, and modules that its code imports although git ignores them or they stand elsewhere.
    """
    root = project.root
    listed = git.listed_files(root, ["."]) if git.repository_root(root) else []
    in_git = MARKER in listed  # an ignored folder of another repository is not in that one
    names = listed if in_git else _walk(root, ["."])
    _refuse_missing(root, names, git.ignored_files(root, ["."]) if in_git else [])
    tree = _from_git(root, names, ["."]) if in_git else _without_git(root, names, None)
    _refuse_elsewhere(tree)
    _refuse_size(tree, in_git)
    return tree


def _from_git(root: Path, listed: Sequence[str], parts: Sequence[str]) -> SourceTree:
    files = [name for name in listed if (root / name).is_file()]  # not the deleted ones
    commit = git.head_commit(root)
    diff = git.edits(root, parts) if commit else b""
    dirty = bool(diff) or (commit is not None and bool(git.new_files(root, parts)))
    return SourceTree(root, tuple(files), Source(_digest(root, files), commit, dirty), diff)


def _without_git(root: Path, files: Sequence[str], installed: str | None) -> SourceTree:
    source = Source(_digest(root, files), None, dirty=False, version=installed)
    return SourceTree(root, tuple(files), source, b"")


def _digest(root: Path, files: Sequence[str]) -> str:
    # A link to another file of the project counts, and is copied, as the file that it leads to.
    return pairs_digest((name, file_sha256((root / name).resolve())) for name in files)


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


def _refuse_missing(root: Path, names: Sequence[str], ignored: Sequence[str]) -> None:
    """Raise `UsageError` with the list of all that would be missing from a snapshot of `names`."""
    faults = [fault for name in names if (fault := _link_fault(root, name))]
    code = [name for name in names if (root / name).is_file() and not _is_not_imported(name)]
    faults += [
        f"{root / name} is ignored by git, and the code imports it"
        for name in ignored_imports(root, code, ignored)
    ]
    if faults:
        raise UsageError(
            f"{_listing(faults)}: a run takes along the files in {root} that git does not ignore. "
            "Put the files themselves there, and list in .gitignore what no run needs."
        )


def _link_fault(root: Path, name: str) -> str | None:
    """The reason why the file of this name would not travel, as a sentence without its stop."""
    path = root / name
    if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
        return f"{path} is a link to {path.resolve()}, outside the project"
    if path.is_dir():
        what = "a link to a folder" if path.is_symlink() else "a git repository of its own"
        return f"{path} is {what}, and its files would not travel with a run"
    return None


def _refuse_elsewhere(tree: SourceTree) -> None:
    code = [name for name in tree.files if not _is_not_imported(name)]
    if found := imports_from_elsewhere(tree.root, code, [repo_root()]):
        raise UsageError(
            f"the code in {tree.root} imports what is neither in it nor installed, and would not "
            f"travel with a run: {_listing([str(place) for place in found])}. Put it into the "
            "project's folder, or install it (pip install FOLDER, without -e)."
        )


def _is_not_imported(name: str) -> bool:
    return name.partition("/")[0].removesuffix(".py") in NOT_IMPORTED


def _listing(items: Sequence[str]) -> str:
    more = f"; and {len(items) - MOST_LISTED} more" if len(items) > MOST_LISTED else ""
    return "; ".join(items[:MOST_LISTED]) + more


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
