"""A run's patch is the whole difference to HEAD, whatever git's configuration or index hides."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hpc.jobs.errors import UsageError
from hpc.jobs.spec import git
from hpc.jobs.spec.source import read_checkout
from tests.hpc.jobs.spec.test_snapshot import git as run_git

BEFORE, AFTER = "lr = 1\ncaf\u00e9 = 2\n\nwidth = 3\n", "lr = 2\ncaf\u00e9 = 2\n\nwidth = 4\n"
CONFIGS = [
    "diff.external=true", "diff.noprefix=true", "diff.mnemonicPrefix=true", "color.ui=always",
    "color.diff=always", "diff.orderFile=/nowhere", "diff.wsErrorHighlight=all",
    "diff.colorMoved=zebra", "diff.relative=true", "diff.context=0", "diff.interHunkContext=9",
    "diff.algorithm=patience", "diff.ignoreSubmodules=all", "diff.suppressBlankEmpty=true",
    "diff.renames=copies", "diff.statGraphWidth=1", "diff.submodule=log", "core.pager=false",
    "core.fsmonitor=true", "core.quotePath=false", "core.untrackedCache=true", "pager.diff=false",
    "diff.srcPrefix=x/", "core.splitIndex=true",
]  # fmt: skip
ATTRIBUTES = ["*.py -diff", "*.py binary", "*.py diff=up", "*.py diff=up -text", "* export-ignore"]


@pytest.fixture()
def root(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    (root / "hpc").mkdir(parents=True)
    for name in ("loop.py", "old.py"):
        (root / "hpc" / name).write_text(BEFORE)
    (root / "hpc" / "windows.py").write_bytes(b"a = 1\r\nb = 2\r\n")
    (root / "hpc" / "latin.py").write_bytes(b"# caf\xe9\nx = 1\n")
    (root / "hpc" / "table.bin").write_bytes(bytes(range(256)))
    run_git(root, "init")
    run_git(root, "add", ".")
    run_git(root, "commit", "-m", "start")
    return root


def edit(root: Path) -> None:
    (root / "hpc" / "loop.py").write_text(AFTER)
    (root / "hpc" / "old.py").unlink()
    (root / "hpc" / "windows.py").write_bytes(b"a = 1\r\nb = 3\r\n")
    (root / "hpc" / "latin.py").write_bytes(b"# caf\xe9\nx = 2\n")
    (root / "hpc" / "table.bin").write_bytes(bytes(range(255, -1, -1)))


def files(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "hpc").iterdir()}


def applied(root: Path, patch: bytes, folder: Path) -> dict[str, bytes]:
    """The files of HEAD with `patch` applied, in a clone without any configuration."""
    run_git(root, "clone", "-q", "--local", str(root), str(folder))
    subprocess.run(["git", "-C", str(folder), "apply"], input=patch, check=True)
    return files(folder)


def test_no_setting_of_the_repository_changes_the_patch(root):
    edit(root)
    before, config = git.edits(root, ["hpc"]), root / ".git" / "config"
    plain, changed = config.read_text(), []
    for setting in CONFIGS:
        section, _, rest = setting.partition(".")
        config.write_text(f"{plain}[{section}]\n{rest}\n")
        changed += [setting] if git.edits(root, ["hpc"]) != before else []
    assert changed == []
    assert read_checkout(root).source.dirty


def test_the_patch_makes_the_files_from_head_letter_for_letter(root, tmp_path):
    edit(root)
    assert applied(root, git.edits(root, ["hpc"]), tmp_path / "clone") == files(root)


@pytest.mark.parametrize(
    ("line", "place"),
    [
        *((line, ".gitattributes") for line in ATTRIBUTES),
        (ATTRIBUTES[0], ".git/info/attributes"),
        (ATTRIBUTES[2], "core.attributesFile"),
    ],
)
def test_an_attribute_hides_no_edit(root, tmp_path, line, place):
    path = tmp_path / "attributes" if place.startswith("core") else root / place
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{line}\n")
    run_git(root, "config", "core.attributesFile", str(tmp_path / "attributes"))
    run_git(root, "config", "diff.up.textconv", "true")
    run_git(root, "config", "diff.up.command", "true")
    edit(root)
    assert applied(root, git.edits(root, ["hpc"]), tmp_path / "clone") == files(root)


@pytest.mark.parametrize("promise", ["--assume-unchanged", "--skip-worktree"])
def test_a_file_that_git_was_told_to_leave_is_compared_and_the_promise_stays(root, promise):
    run_git(root, "update-index", promise, "hpc/loop.py", "hpc/old.py")
    assert not read_checkout(root).source.dirty
    edit(root)
    tree = read_checkout(root)
    assert tree.source.dirty
    assert b"+lr = 2" in tree.diff
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-v"], capture_output=True, text=True, check=True
    )
    assert sum(line[0] in "hS" for line in listed.stdout.splitlines()) == 2


@pytest.mark.parametrize("option", [[], ["-N"]])
def test_a_file_that_was_added_and_not_committed_is_an_edit(root, option):
    (root / "hpc" / "new.py").write_text("new = 1\n")
    run_git(root, "add", *option, "hpc/new.py")
    tree = read_checkout(root)
    assert tree.source.dirty
    assert b"+new = 1" in tree.diff


def test_a_touched_file_and_a_mere_index_are_no_edit(root):
    (root / "hpc" / "loop.py").touch()
    tree = read_checkout(root)
    assert (tree.source.dirty, tree.diff) == (False, b"")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda root: (root / ".git" / "index").write_bytes(b"no index"), "git ls-files: "),
        (lambda root: (root / ".git" / "refs" / "heads" / "main").write_text("1" * 40), "git "),
        (lambda root: (root / ".git" / "config").open("a").write("[nonsense"), None),
    ],
)
def test_a_repository_that_git_cannot_read_is_never_clean(root, damage, words):
    damage(root)
    if words is None:  # git finds no repository there: the files are walked, and there is no commit
        assert read_checkout(root).source.commit is None
        return
    with pytest.raises(UsageError, match=f"git cannot read the source in .*: {words}"):
        read_checkout(root)


def test_reading_leaves_the_repository_as_it_was(root):
    edit(root)
    before = {path: path.stat().st_mtime_ns for path in (root / ".git").rglob("*")}
    assert read_checkout(root).diff
    assert {path: path.stat().st_mtime_ns for path in (root / ".git").rglob("*")} == before
