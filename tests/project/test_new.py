"""`lockgate new`: whole or not at all, named as it may be, and each kind passes its own test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conf.project import read_project
from hpc.cli import new
from hpc.cli.main import main

REPO = Path(__file__).parents[2]
KINDS = ("module", "tabular", "text", "transformers")


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_project_of_each_kind_is_written_under_its_name(kind, tmp_path, capsys):
    assert main(["new", str(tmp_path / "my_net"), "--kind", kind]) == 0
    root = tmp_path / "my_net"
    assert f"made {root}, a project of kind {kind}" in capsys.readouterr().out
    assert read_project(root).name == "my_net"
    files = files_of(root)
    assert {
        ".gitignore", "README.md", "fabfile.py", "lockgate.yaml", "tests/test_project.py",
        "conf/data/my_net.yaml", "conf/task/my_net.yaml", "conf/gates/my_net.yaml",
    } <= files  # fmt: skip
    assert [name for name in files if new.PLACEHOLDER in name] == []
    assert [
        name for name in files if new.PLACEHOLDER in (root / name).read_text(encoding="utf-8")
    ] == []
    assert sum((root / name).stat().st_size for name in files) < 256 << 10
    assert [path.name for path in tmp_path.iterdir()] == ["my_net"]
    assert os.access(root, os.R_OK | os.X_OK)
    assert root.stat().st_mode & 0o777 == 0o777 & ~new._umask()


def test_kinds_without_code_have_no_package():
    for kind in ("tabular", "text", "transformers"):
        assert [name for name in files_of(new.TEMPLATES / kind) if name.endswith(".py")] == []


def test_every_kind_has_a_template_and_is_explained(capsys):
    assert tuple(new.kinds()) == KINDS
    with pytest.raises(SystemExit):
        main(["new", "--help"])
    text = capsys.readouterr().out
    assert [kind for kind in KINDS if f"\n  {kind} " not in text] == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my-net", "name=my-net: must be a Python identifier"),
        ("class", "name=class: must be a Python identifier"),
        ("hpc", "hpc is also a package of Lockgate"),
        ("json", "json is also a package of Python's standard library"),
        ("yaml", "yaml is also a package of"),
    ],
)
def test_a_name_that_no_package_can_have_is_refused(name, said, tmp_path, capsys):
    assert main(["new", str(tmp_path / name)]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_left_alone(tmp_path, capsys):
    root = tmp_path / "my_net"
    root.mkdir()
    (root / "notes.txt").write_text("mine")
    assert main(["new", str(root)]) == 2
    assert (
        "is there already and not an empty folder; nothing was written" in capsys.readouterr().err
    )
    assert files_of(root) == {"notes.txt"}
    (root / "notes.txt").unlink()
    assert main(["new", str(root)]) == 0
    assert main(["new", str(root)]) == 2


def test_what_goes_wrong_half_way_leaves_nothing(tmp_path, capsys, monkeypatch):
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(new, "_umask", full)  # after everything was written, before the last step
    assert main(["new", str(tmp_path / "my_net")]) == 1
    assert "was not made" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [pytest.param("module", marks=pytest.mark.full), *KINDS[1:]]
)  # the tour of docs/extending.md is a module's
def test_a_project_passes_its_own_test_as_made(kind, tmp_path):
    root = tmp_path / "my_net"
    assert main(["new", str(root), "--kind", kind]) == 0
    variables = {name: value for name, value in os.environ.items() if name != "LOCKGATE_PROJECT"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=root,
        env={**variables, "PYTHONPATH": str(REPO)}, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "2 passed" in done.stdout
