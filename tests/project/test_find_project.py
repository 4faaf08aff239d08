"""A project: how it is found, which site and configs it brings, and what it may not be called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conf import ConfigError, compose, options
from conf import project as projects
from conf.project import enter_project, find_project, read_project
from conf.tree import groups
from hpc.cli.main import main


@pytest.fixture(autouse=True)
def unnamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins with no project, and leaves the import path as it was."""
    monkeypatch.setenv("LOCKGATE_PROJECT", "")
    monkeypatch.delenv("LOCKGATE_PROJECT")
    monkeypatch.setattr(sys, "path", list(sys.path))


def make_project(root: Path, text: str = "name: digits\n") -> Path:
    (root / "conf").mkdir(parents=True)
    (root / "lockgate.yaml").write_text(text)
    return root


def add_config(root: Path, name: str, text: str) -> None:
    path = root / "conf" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_it_is_found_from_a_folder_inside_it(tmp_path):
    root = make_project(tmp_path / "digits")
    (root / "a" / "b").mkdir(parents=True)
    found = find_project(root / "a" / "b")
    assert found is not None
    assert (found.root, found.name, found.site) == (root, "digits", "box")
    assert find_project(tmp_path) is None


def test_the_variable_comes_before_the_working_directory(tmp_path, monkeypatch):
    one = make_project(tmp_path / "one")
    other = make_project(tmp_path / "other", "name: other\nsite: lab\n")
    monkeypatch.chdir(one)
    monkeypatch.setenv("LOCKGATE_PROJECT", str(other))
    assert find_project() == projects.Project(other, "other", "lab")
    monkeypatch.setenv("LOCKGATE_PROJECT", "")  # as for a job without a project
    assert find_project() is None
    monkeypatch.setenv("LOCKGATE_PROJECT", str(tmp_path))
    with pytest.raises(ConfigError, match=r"is no project: it has no lockgate.yaml.*lockgate new"):
        find_project()


def test_the_working_directory_may_be_gone(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert find_project() is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: digits\nsite: [box\n", r"lockgate.yaml:3: .*"),
        ("name: digits\n\nsiet: box\n", r"lockgate.yaml:3: siet is unknown here. Nearest: site"),
        ("# nothing\n", r"lockgate.yaml:1: the whole is None"),
        ("site: box\n", r"lockgate.yaml:1: name is missing"),
        ("site: box\nname: 7\n", r"lockgate.yaml:2: name is 7, not of type str"),
        ("name: my-net\n", r"lockgate.yaml:1: name=my-net: must be a Python identifier"),
        ("name: class\n", r"lockgate.yaml:1: name=class: must be"),
        ("name: a\x00b\n", r"lockgate.yaml:1: "),
    ],
)
def test_a_broken_file_is_refused_with_its_line(tmp_path, text, said):
    root = make_project(tmp_path / "digits", text)
    with pytest.raises(ConfigError, match=said) as error:
        find_project(root)
    assert str(root / "lockgate.yaml") in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_somebody_elses_project_is_used_only_when_it_is_named(tmp_path, monkeypatch):
    root = make_project(tmp_path / "digits")
    os.chown(root / "lockgate.yaml", 65534, -1)
    with pytest.raises(ConfigError, match=r"belongs to nobody. .*--project .*digits"):
        find_project(root)
    monkeypatch.setenv("LOCKGATE_PROJECT", str(root))
    assert find_project() == read_project(root)


def test_its_configs_are_searched_before_lockgates(tmp_path, monkeypatch):
    root = make_project(tmp_path / "digits")
    add_config(root, "task/digits", "# @package _global_\ntask: {name: digits}\nsteps: 7\n")
    add_config(root, "cluster/local", "kind: local\nnodes: 1\nmine: 1\n")
    assert "digits" not in options("task")
    monkeypatch.setenv("LOCKGATE_PROJECT", str(root))
    assert {"digits", "flights"} <= set(options("task"))
    config = compose("train", ["task=digits", "cluster=local"])
    assert (config.steps, config.task.name, config.cluster.mine) == (7, "digits", 1)
    with pytest.raises(ConfigError, match="Nearest: digits"):
        compose("train", ["task=digit"])
    monkeypatch.delenv("LOCKGATE_PROJECT")  # the next command in the same process has none
    with pytest.raises(ConfigError, match="there is no such task"):
        compose("train", ["task=digits"])


def test_a_group_of_its_own_is_a_group(tmp_path, monkeypatch):
    root = make_project(tmp_path / "digits")
    add_config(root, "backbone/small", "width: 3\n")
    monkeypatch.setenv("LOCKGATE_PROJECT", str(root))
    assert "backbone" in groups()
    assert compose("train", ["task=flights", "+backbone=small"]).backbone.width == 3
    with pytest.raises(ConfigError, match="Nearest: small"):
        compose("train", ["task=flights", "+backbone=smal"])


def test_a_site_of_ones_own_is_one_file(tmp_path, monkeypatch):
    root = make_project(tmp_path / "digits", "name: digits\nsite: lab\n")
    site = (Path(projects.__file__).parent / "site" / "box.yaml").read_text()
    add_config(root, "site/lab", site.replace("name: box", "name: lab", 1))
    monkeypatch.setenv("LOCKGATE_PROJECT", str(root))
    for primary in ("site", "rollout", "data", "observe"):
        overrides = ["data=flights"] if primary == "data" else []
        assert compose(primary, overrides).site.name == "lab", primary
        assert compose(primary, [*overrides, "site=box"]).site.name == "box", primary


def test_a_default_site_that_is_not_there_names_the_file_it_would_be(tmp_path, monkeypatch):
    root = make_project(tmp_path / "digits", "name: digits\nsite: bax\n")
    monkeypatch.setenv("LOCKGATE_PROJECT", str(root))
    with pytest.raises(ConfigError, match=r"site: bax: there is no such site.*Nearest: box"):
        compose("site")
    assert compose("site", ["site=box"]).site.name == "box"


def test_a_broken_config_file_is_named_with_its_line(tmp_path, monkeypatch):
    root = make_project(tmp_path / "digits")
    add_config(root, "task/digits", "# @package _global_\ntask: [\n")
    monkeypatch.setenv("LOCKGATE_PROJECT", str(root))
    with pytest.raises(ConfigError, match=r"task/digits.yaml\", line 3") as error:
        compose("train", ["task=digits"])
    assert "\n" not in str(error.value)


def test_its_packages_can_be_imported_after_everybody_elses(tmp_path, monkeypatch):
    root = make_project(tmp_path / "digits")
    (root / "digits").mkdir()
    (root / "digits" / "net.py").write_text("")
    monkeypatch.chdir(root / "digits")
    assert enter_project() == read_project(root)
    assert sys.path[-1] == str(root)
    enter_project()
    assert sys.path.count(str(root)) == 1
    child = "import conf.project as p; print(p.find_project().root)"
    done = subprocess.run(
        [sys.executable, "-c", child], cwd="/", capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(projects.__file__).parents[1])},
    )  # fmt: skip
    assert done.stdout.strip() == str(root), done.stderr


@pytest.mark.parametrize(
    ("name", "other"),
    [("hpc", "Lockgate"), ("json", "standard library"), ("yaml", "yaml/__init__.py")],
)
@pytest.mark.parametrize("kind", ["name", "module", "package"])
def test_a_name_that_is_taken_is_refused(tmp_path, monkeypatch, name, other, kind):
    root = make_project(tmp_path / "p", f"name: {name if kind == 'name' else 'digits'}\n")
    if kind == "module":
        (root / f"{name}.py").write_text("")
    elif kind == "package":
        (root / name).mkdir()
        (root / name / "__init__.py").write_text("")
    monkeypatch.chdir(root)
    with pytest.raises(ConfigError, match=f"{name} is also a package of .*{other}"):
        enter_project()


def test_the_command_takes_a_project_anywhere_among_its_words(tmp_path, monkeypatch, capsys):
    root = make_project(tmp_path / "digits")
    add_config(root, "task/digits", "# @package _global_\ntask: {name: digits}\nsteps: 7\n")
    words = ["train", "task=digits", "--cfg", "job"]
    assert main(words) == 2
    assert "task=digits: there is no such task" in capsys.readouterr().err
    for place in range(len(words) - 1):
        monkeypatch.delenv("LOCKGATE_PROJECT", raising=False)
        assert main([*words[:place], "--project", str(root), *words[place:]]) == 0
        assert "steps: 7" in capsys.readouterr().out
    monkeypatch.delenv("LOCKGATE_PROJECT", raising=False)
    assert main([*words, f"--project={root}"]) == 0
    monkeypatch.delenv("LOCKGATE_PROJECT", raising=False)
    assert main([*words, "--project"]) == 2
    assert main([*words, "--project", str(tmp_path)]) == 2
    assert "is no project" in capsys.readouterr().err
