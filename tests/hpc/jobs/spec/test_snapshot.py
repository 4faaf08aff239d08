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
    assert (clean.source.dirty, clean.diff, len(clean.source.commit or "")) == (False, b"", 40)
    (checkout / "hpc" / "loop.py").write_text("lr = 2\n")
    edited = read_checkout(checkout)
    assert edited.source.dirty
    assert b"+lr = 2" in edited.diff
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
    assert (read.source.commit, read.source.dirty, read.diff) == (None, False, b"")
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
    assert (code.project.source.dirty, code.project.diff) == (False, b"")
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
    assert b"+width = 2" in code.project.diff
    assert b"a/digits/net.py" in code.project.diff  # as the project sees it
    assert b"other.py" not in code.project.diff
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


def nested_clone(root: Path) -> None:
    (root / "vendor").mkdir()
    git(root / "vendor", "init")


def submodule(root: Path) -> None:
    other = root.parent.parent / "library"
    other.mkdir()
    git(other, "init")
    (other / "code.py").write_text("")
    git(other, "add", ".")
    git(other, "commit", "-m", "start")
    git(root, "-c", "protocol.file.allow=always", "submodule", "add", str(other), "vendor")
    git(root, "commit", "-m", "submodule")


def submodule_that_was_not_fetched(root: Path) -> None:
    submodule(root)
    git(root, "submodule", "deinit", "-f", "vendor")


@pytest.mark.parametrize("make", [nested_clone, submodule, submodule_that_was_not_fetched])
def test_a_repository_inside_a_project_is_refused(project, make):
    make(project.root)
    with pytest.raises(UsageError, match="vendor is a git repository of its own"):
        read_project_tree(project)


def write(root: Path, name: str, text: str = "") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


IMPORTS = [
    # what git ignores; the file that needs it, and its words
    ("digits/made.py", "digits/net.py", "import digits.made"),
    ("digits/made.py", "digits/net.py", "from digits import old, made"),
    ("digits/made.py", "digits/net.py", "from .made import WIDTH"),
    ("digits/made.py", "digits/deep/net.py", "def late():\n    from ..made import WIDTH"),
    ("digits/made/__init__.py", "digits/net.py", "from digits.made.parts import one"),
    ("digits/made/parts.py", "digits/net.py", "import digits.made.parts as parts"),
    ("made.py", "digits/net.py", "import made"),
    ("made.cpython-312-x86_64-linux-gnu.so", "digits/net.py", "import made"),
    ("digits/made.py", "conf/model/net.yaml", "_target_: digits.made.Network"),
]
NOT_IMPORTS = [
    ("digits/made.py", "digits/net.py", "made = 1  # import digits.made"),
    ("digits/made.py", "digits/net.py", '"""For example:\n\n    import digits.made\n"""'),
    ("digits/made.py", "tests/test_net.py", "import digits.made"),  # no job runs the tests
    ("digits/made.csv", "digits/net.py", "import digits.made"),
    ("data/made.py", "digits/net.py", "import digits.made"),
    ("digits/made.py", "digits/net.py", "import digits.made as"),  # no Python; the job will say so
]


@pytest.mark.parametrize(("ignored", "importer", "words"), IMPORTS)
def test_what_git_ignores_and_the_code_imports_is_refused_by_name(
    project, ignored, importer, words
):
    write(project.root, ".gitignore", "made*\n")
    write(project.root, ignored)
    read_project_tree(project)
    write(project.root, importer, words)
    with pytest.raises(UsageError, match=r"digits/(\w+/)*made\S* is ignored by git, and the code"):
        read_project_tree(project)


@pytest.mark.parametrize(("ignored", "importer", "words"), NOT_IMPORTS)
def test_what_git_ignores_and_no_code_imports_stays_behind(project, ignored, importer, words):
    write(project.root, ".gitignore", "made*\n")
    write(project.root, ignored)
    write(project.root, importer, words)
    assert ignored not in read_project_tree(project).files


def test_a_sibling_in_the_larger_repository_is_refused_where_the_code_imports_it(
    project, monkeypatch
):
    """As an editable install has it, or PYTHONPATH: the job would take it as it is then."""
    shared = project.root.parent / "shared_layers"
    write(shared, "__init__.py")
    monkeypatch.syspath_prepend(str(project.root.parent))
    read_project_tree(project)
    write(project.root, "digits/net.py", "import json\nimport yaml\nfrom shared_layers import x\n")
    with pytest.raises(UsageError, match=f"would not travel with a run: {shared}"):
        read_project_tree(project)
    write(project.root, "shared_layers/__init__.py")  # the project's own comes with it
    assert "shared_layers/__init__.py" in read_project_tree(project).files


def test_what_is_installed_is_not_elsewhere(project, monkeypatch, tmp_path):
    installed = tmp_path / "site-packages"
    write(installed, "shared_layers/__init__.py")
    monkeypatch.syspath_prepend(str(installed))
    text = "import shared_layers, os, numpy, hpc.tasks, sys\nimport nobody_has_this\n"
    write(project.root, "digits/net.py", text)
    assert read_project_tree(project).source.dirty


def test_all_that_would_be_missing_is_listed_at_once(project):
    (project.root / "one").symlink_to("/etc")
    (project.root / "two").symlink_to("digits")
    nested_clone(project.root)
    with pytest.raises(UsageError) as refused:
        read_project_tree(project)
    assert all(f"{project.root / name} is" in str(refused.value) for name in ("one", "two"))
    assert f"{project.root}/vendor is" in str(refused.value)


def link_out(root: Path) -> None:
    (root / "hpc" / "mine").symlink_to(root.parent)


def link_inside(root: Path) -> None:
    (root / "hpc" / "mine").symlink_to("../conf")


def own_repository(root: Path) -> None:
    (root / "hpc" / "mine").mkdir()
    git(root / "hpc" / "mine", "init")


def ignored_module(root: Path) -> None:
    write(root, ".gitignore", "mine.py\n")
    write(root, "hpc/mine.py")
    write(root, "hpc/loop.py", "from hpc import mine")


@pytest.mark.parametrize("in_git", [True, False])
@pytest.mark.parametrize("make", [link_out, link_inside, own_repository, ignored_module])
def test_lockgates_own_source_is_whole_or_refused(checkout, make, in_git):
    if not in_git:
        (checkout / ".git").rename(checkout / "no-git")
    make(checkout)
    if not in_git and make in (own_repository, ignored_module):  # without git, all of it travels
        assert "hpc/mine.py" in read_checkout(checkout).files or make is own_repository
        return
    with pytest.raises(UsageError, match="hpc/mine"):
        read_checkout(checkout)


def test_a_project_that_is_too_big_names_its_largest_files(project, monkeypatch):
    monkeypatch.setattr(source, "PROJECT_LIMIT_BYTES", 1 << 20)
    (project.root / "small.csv").write_bytes(bytes(1 << 19))
    read_project_tree(project)
    (project.root / "huge.csv").write_bytes(bytes(3 << 20))
    with pytest.raises(UsageError, match=r"largest: huge.csv \(3.0 MiB\), small.csv"):
        read_project_tree(project)
    (project.root / ".gitignore").write_text("*.csv\n")
    read_project_tree(project)
