from __future__ import annotations

import os
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from conf.project import Project
from hpc.jobs.errors import SpecChanged, UsageError
from hpc.jobs.spec import source
from hpc.jobs.spec.job_spec import JobSpec
from hpc.jobs.spec.snapshot import Code, SourceSnapshot, check_snapshot, discard, take_snapshot
from hpc.jobs.spec.source import SourceTree, read_checkout, read_project_tree
from serving.artifact.digest import tree_digest
from tests.hpc.jobs.spec.test_job_spec import spec_of


def git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True, capture_output=True)


def take(tree: SourceTree, snapshots: Path) -> Path:
    """Lockgate's source alone, as for a run without a project."""
    return take_snapshot(Code(tree, None), snapshots).folder


def verify(snapshots: Path, tree: SourceTree) -> Path:
    return check_snapshot(snapshots, spec_of({}, source=tree.source)).folder


@pytest.fixture()
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    (root / "hpc" / "__pycache__").mkdir(parents=True)
    (root / "conf").mkdir()
    (root / "hpc" / "loop.py").write_text("lr = 1\n")
    (root / "hpc" / "old.py").write_text("old\n")
    (root / "hpc" / "__pycache__" / "loop.pyc").write_bytes(b"\0")
    (root / "conf" / "train.yaml").write_text("steps: 1\n")
    (root / "pyproject.toml").write_text("[project]\n")
    (root / "notes.txt").write_text("not part of any run\n")
    (root / ".gitignore").write_text("__pycache__/\n*.local\n")
    git(root, "init")
    git(root, "add", ".")
    git(root, "commit", "-m", "start")
    return root


@pytest.fixture()
def snapshots(tmp_path: Path):
    yield tmp_path / "snapshots"
    discard(tmp_path / "snapshots")


def test_a_snapshot_holds_the_parts_as_they_stand(checkout, snapshots):
    (checkout / "hpc" / "loop.py").write_text("lr = 2\n")  # edited, not committed
    (checkout / "hpc" / "new.py").write_text("new\n")  # not even added
    (checkout / "hpc" / "secret.local").write_text("ignored by git\n")
    (checkout / "hpc" / "old.py").unlink()
    folder = take(read_checkout(checkout), snapshots)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {"hpc/loop.py", "hpc/new.py", "conf/train.yaml", "pyproject.toml"}
    assert (folder / "hpc" / "loop.py").read_text() == "lr = 2\n"


def test_its_name_is_its_content_and_its_content_is_read_only(checkout, snapshots):
    folder = take(read_checkout(checkout), snapshots)
    assert tree_digest(folder, exclude=()) == folder.name
    assert [path for path in (folder, *folder.rglob("*")) if path.stat().st_mode & 0o222] == []
    assert [path.name for path in snapshots.iterdir()] == [folder.name]


def test_head_and_edits_are_recorded(checkout):
    clean = read_checkout(checkout)
    assert (clean.source.dirty, clean.diff, len(clean.source.commit or "")) == (False, "", 40)
    (checkout / "hpc" / "loop.py").write_text("lr = 2\n")
    edited = read_checkout(checkout)
    assert edited.source.dirty
    assert "+lr = 2" in edited.diff
    assert edited.source.digest != clean.source.digest
    git(checkout, "checkout", "hpc/loop.py")
    (checkout / "hpc" / "new.py").write_text("new\n")
    assert read_checkout(checkout).source.dirty


def test_the_same_source_is_the_same_snapshot(checkout, snapshots):
    first = take(read_checkout(checkout), snapshots)
    os.utime(checkout / "hpc" / "loop.py", (1, 1))
    (checkout / "notes.txt").write_text("other notes\n")
    before = first.stat().st_mtime_ns
    assert take(read_checkout(checkout), snapshots) == first
    assert first.stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", ["edit", "add", "remove"])
def test_a_damaged_snapshot_is_refused_by_a_job_and_mended_by_a_submit(checkout, snapshots, damage):
    read = read_checkout(checkout)
    folder = take(read, snapshots)
    for path in (folder, folder / "hpc", folder / "hpc" / "loop.py"):
        path.chmod(0o755)
    if damage == "edit":
        (folder / "hpc" / "loop.py").write_text("lr = 3\n")
    elif damage == "add":
        (folder / "hpc" / "extra.py").write_text("extra\n")
    else:
        (folder / "hpc" / "loop.py").unlink()
    with pytest.raises(SpecChanged, match="changed after submit"):
        verify(snapshots, read)
    assert take(read, snapshots) == folder
    assert verify(snapshots, read) == folder


def test_source_that_changes_while_it_is_copied_is_refused(checkout, snapshots):
    read = read_checkout(checkout)
    (checkout / "hpc" / "loop.py").write_text("lr = 2\n")
    with pytest.raises(SpecChanged, match="changed while it was copied"):
        take(read, snapshots)
    assert list(snapshots.iterdir()) == []


def test_without_git_the_packages_are_walked(tmp_path, snapshots):
    root = tmp_path / "installed"
    (root / "hpc" / "__pycache__").mkdir(parents=True)
    (root / "hpc" / "loop.py").write_text("lr = 1\n")
    (root / "hpc" / "__pycache__" / "loop.pyc").write_bytes(b"\0")
    read = read_checkout(root)
    assert read.files == ("hpc/loop.py",)
    assert (read.source.commit, read.source.dirty, read.diff) == (None, False, "")
    assert read.source.version == version("lockgate")
    assert verify(snapshots, read) if take(read, snapshots) else False


def test_a_checkout_inside_another_ones_git_is_walked(checkout):
    inner = checkout / "vendor" / "lockgate"
    (inner / "hpc").mkdir(parents=True)
    (inner / "hpc" / "loop.py").write_text("lr = 1\n")
    assert read_checkout(inner).source.commit is None


@pytest.fixture()
def project(tmp_path: Path) -> Project:
    """A project in a folder of a larger repository."""
    root = tmp_path / "work" / "digits"
    (root / "digits").mkdir(parents=True)
    (root / "conf" / "task").mkdir(parents=True)
    (root / "lockgate.yaml").write_text("name: digits\n")
    (root / "digits" / "net.py").write_text("width = 1\n")
    (root / "digits" / "old.py").write_text("old\n")
    (root / "conf" / "task" / "digits.yaml").write_text("name: digits\n")
    (root / ".gitignore").write_text("*.big\n")
    (tmp_path / "work" / "other.py").write_text("of the larger repository\n")
    git(tmp_path / "work", "init")
    git(tmp_path / "work", "add", ".")
    git(tmp_path / "work", "commit", "-m", "start")
    return Project(root, "digits", "box")


def spec_for(code: Code) -> JobSpec:
    assert code.project
    return spec_of({}, source=code.checkout.source, project=code.project.source)


def take_both(checkout: Path, project: Project, snapshots: Path) -> tuple[Code, SourceSnapshot]:
    code = Code(read_checkout(checkout), read_project_tree(project))
    return code, take_snapshot(code, snapshots)


def files_under(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


PROJECT_FILES = {
    ".gitignore", "lockgate.yaml", "conf/task/digits.yaml", "digits/net.py", "digits/old.py",
}  # fmt: skip


def test_a_projects_files_stand_beside_lockgates_with_a_digest_of_their_own(
    checkout, project, snapshots
):
    code, taken = take_both(checkout, project, snapshots)
    assert taken.project == taken.folder / "project"
    assert files_under(taken.project) == PROJECT_FILES
    assert (taken.folder / "hpc" / "loop.py").is_file()
    assert tree_digest(taken.project, exclude=()) == code.project.source.digest
    assert len(code.project.source.commit or "") == 40
    assert (code.project.source.dirty, code.project.diff) == (False, "")
    assert check_snapshot(snapshots, spec_for(code)) == taken
    alone = take(code.checkout, snapshots)
    assert alone != taken.folder  # a run without the project is another snapshot


def test_edited_new_and_deleted_files_of_a_project_travel_as_they_stand(
    checkout, project, snapshots
):
    (project.root / "digits" / "net.py").write_text("width = 2\n")
    (project.root / "digits" / "new.py").write_text("new\n")
    (project.root / "digits" / "old.py").unlink()
    (project.root / "data.big").write_text("ignored by git\n")
    (project.root.parent / "other.py").write_text("edited, but not of the project\n")
    code, taken = take_both(checkout, project, snapshots)
    assert files_under(taken.project) == PROJECT_FILES - {"digits/old.py"} | {"digits/new.py"}
    assert code.project.source.dirty
    assert "+width = 2" in code.project.diff
    assert "a/digits/net.py" in code.project.diff  # as the project sees it
    assert "other.py" not in code.project.diff
    assert not code.checkout.source.dirty


def test_editing_a_project_after_submit_changes_nothing(checkout, project, snapshots):
    code, taken = take_both(checkout, project, snapshots)
    (project.root / "digits" / "net.py").write_text("width = 3\n")
    assert (taken.project / "digits" / "net.py").read_text() == "width = 1\n"
    assert check_snapshot(snapshots, spec_for(code)) == taken


@pytest.mark.parametrize("damaged", ["hpc/loop.py", "project/digits/net.py"])
def test_damage_in_either_half_is_refused_by_a_job(checkout, project, snapshots, damaged):
    code, taken = take_both(checkout, project, snapshots)
    path = taken.folder / damaged
    path.chmod(0o644)
    path.write_text("changed\n")
    with pytest.raises(SpecChanged, match="changed after submit"):
        check_snapshot(snapshots, spec_for(code))


def test_a_project_that_changes_while_it_is_copied_is_refused(checkout, project, snapshots):
    code = Code(read_checkout(checkout), read_project_tree(project))
    (project.root / "digits" / "net.py").write_text("width = 2\n")
    with pytest.raises(SpecChanged, match="digits changed while it was copied"):
        take_snapshot(code, snapshots)
    assert list(snapshots.iterdir()) == []


def test_a_project_without_git_travels_without_its_environments(tmp_path, checkout, snapshots):
    root = tmp_path / "plain"
    for folder in ("conf", ".venv", "env", "net/__pycache__", ".git-not"):
        (root / folder).mkdir(parents=True)
    (root / "lockgate.yaml").write_text("name: net\n")
    (root / "conf" / "train.yaml").write_text("")
    (root / ".gitignore").write_text("")
    (root / "net" / "model.py").write_text("")
    (root / "env" / "pyvenv.cfg").write_text("")
    (root / ".venv" / "python").write_text("")
    (root / "net" / "__pycache__" / "model.pyc").write_text("")
    (root / "same.py").symlink_to("net/model.py")
    _, taken = take_both(checkout, Project(root, "net", "box"), snapshots)
    expected = {".gitignore", "conf/train.yaml", "lockgate.yaml", "net/model.py", "same.py"}
    assert files_under(taken.project) == expected
    assert not (taken.project / "same.py").is_symlink()


def test_a_project_in_a_folder_that_another_repository_ignores_is_walked(checkout, project):
    (project.root.parent / ".gitignore").write_text("digits/\n")
    git(project.root.parent, "rm", "-r", "--cached", "digits")
    tree = read_project_tree(project)
    assert set(tree.files) == PROJECT_FILES
    assert tree.source.commit is None


@pytest.mark.parametrize("in_git", [True, False])
@pytest.mark.parametrize("target", ["/etc/hostname", "../other.py", "/etc", "digits"])
def test_a_link_out_of_the_project_or_to_a_folder_is_refused(project, target, in_git):
    if not in_git:
        (project.root.parent / ".git").rename(project.root.parent / "no-git")
    (project.root / "link").symlink_to(target)
    said = "is a link to a folder" if target == "digits" else "outside the project"
    with pytest.raises(UsageError, match=f"link {said}|link is a link to .*{said}"):
        read_project_tree(project)


def test_a_repository_inside_a_project_is_refused(project):
    (project.root / "vendor").mkdir()
    git(project.root / "vendor", "init")
    with pytest.raises(UsageError, match="vendor is a git repository of its own"):
        read_project_tree(project)


def test_a_project_that_is_too_big_names_its_largest_files(project, monkeypatch):
    monkeypatch.setattr(source, "PROJECT_LIMIT_BYTES", 1 << 20)
    (project.root / "small.csv").write_bytes(bytes(1 << 19))
    read_project_tree(project)
    (project.root / "huge.csv").write_bytes(bytes(3 << 20))
    with pytest.raises(UsageError, match=r"largest: huge.csv \(3.0 MiB\), small.csv"):
        read_project_tree(project)
    (project.root / ".gitignore").write_text("*.csv\n")
    read_project_tree(project)
