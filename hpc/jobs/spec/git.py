"""Git's answers about a source tree, whatever the configuration of its owner says.

Only commands that write nothing into the repository, and of them git's plumbing where there is a
choice: `git diff` is for people and follows diff.external, diff.noprefix, color.ui, diff.orderFile
and more; `git diff-index` follows none of them. See https://git-scm.com/docs/git#_low_level_commands_plumbing
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpc.jobs.errors import UsageError, error_line

# The training user reads a checkout that somebody else owns; reading is all it does. A monitor of
# files is a program that the repository names, and may be wrong.
OPTIONS = (
    "-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-c", "diff.suppressBlankEmpty=false",
)  # fmt: skip
VARIABLES = {"PATH": "/usr/local/bin:/usr/bin:/bin", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
WHOLE = ("-p", "--binary", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames")
"""The difference in full, as `git apply` takes it: of what an attribute calls binary too."""


def repository_root(folder: Path) -> Path | None:
    """The top of the repository that `folder` is in; None where there is none, or no git."""
    try:
        top = _output(folder, "rev-parse", "--show-toplevel")
    except (OSError, UsageError):
        return None
    return Path(top.rstrip("\n"))


def head_commit(root: Path) -> str | None:
    """The commit that is checked out; None before the first one."""
    try:
        return _output(root, "rev-parse", "--verify", "-q", "HEAD").strip()
    except UsageError:
        return None


def listed_files(root: Path, parts: Sequence[str]) -> list[str]:
    """Tracked and new files that git does not ignore, by their paths in `root`, sorted.

    A repository inside is one name that is a folder. Raises `UsageError` where git fails.
    """
    listed = _output(root, "ls-files", "-co", "--exclude-standard", "-z", "--", *parts)
    return sorted({name for name in listed.split("\0") if name})


def new_files(root: Path, parts: Sequence[str]) -> list[str]:
    """Files that git neither tracks nor ignores. Raises `UsageError` where git fails."""
    listed = _output(root, "ls-files", "-o", "--exclude-standard", "-z", "--", *parts)
    return [name for name in listed.split("\0") if name]


def ignored_files(root: Path, parts: Sequence[str]) -> list[str]:
    """Files that git ignores, a folder of nothing else as one name that ends in a slash.

    Raises `UsageError` where git fails.
    """
    words = ("ls-files", "-o", "-i", "--exclude-standard", "--directory", "-z")
    return [name for name in _output(root, *words, "--", *parts).split("\0") if name]


def edits(root: Path, parts: Sequence[str]) -> bytes:
    """The difference between HEAD and the files as they stand, as a patch below `root`.

    Files that git was told to take as unchanged (`update-index --assume-unchanged`) are compared
    too. Raises `UsageError` where git fails: what cannot be compared is not the same.
    """
    index = Path(root, _output(root, "rev-parse", "--git-path", "index").rstrip("\n"))
    with tempfile.TemporaryDirectory() as folder:
        # A copy, in which git may note what it found: the repository may be somebody else's.
        copy = Path(folder, "index")
        if index.is_file():
            shutil.copy2(index, copy)  # git compares its time with those of files
        own = {"GIT_INDEX_FILE": str(copy)}
        _compare_all(root, parts, own)
        _run(root, own, "update-index", "-q", "--refresh")  # its code 1 is that there are edits
        words = ("diff-index", *WHOLE, "--relative", "HEAD", "--", *parts)
        return _answer(root, *words, variables=own)


def _compare_all(root: Path, parts: Sequence[str], own: Mapping[str, str]) -> None:
    """Take back in the index of `own` each promise that a file which is there is unchanged."""
    tagged = _output(root, "ls-files", "-v", "-z", "--", *parts, variables=own).split("\0")
    promised = [entry[2:] for entry in tagged if entry[:1] == "S" or entry[:1].islower()]
    names = "".join(f"{name}\0" for name in promised if (root / name).exists())
    if names:
        for option in ("--no-assume-unchanged", "--no-skip-worktree"):
            _output(root, "update-index", option, "-z", "--stdin", variables=own, text=names)


def _output(
    root: Path, *words: str, variables: Mapping[str, str] | None = None, text: str = ""
) -> str:
    """The answer as text; a byte that is none of UTF-8 as Python has it in names of files."""
    return os.fsdecode(_answer(root, *words, variables=variables, text=text))


def _answer(
    root: Path, *words: str, variables: Mapping[str, str] | None = None, text: str = ""
) -> bytes:
    done = _run(root, variables or {}, *words, text=text)
    if done.returncode != 0:
        reason = error_line(done.stderr.decode(errors="replace"))
        raise UsageError(
            f"git cannot read the source in {root}: git {words[0]}: {reason}. A run's code is "
            "recorded as it stands; mend the repository, and submit again."
        )
    return done.stdout


def _run(
    root: Path, variables: Mapping[str, str], *words: str, text: str = ""
) -> subprocess.CompletedProcess[bytes]:
    """Raises OSError without a git."""
    return subprocess.run(
        ["git", *OPTIONS, "-C", str(root), *words], input=os.fsencode(text), capture_output=True,
        check=False, env={**VARIABLES, **variables},
    )  # fmt: skip
