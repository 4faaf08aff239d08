"""Files that it takes to add a task, a model and a gate: counted, and none of them Lockgate's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TASK = """\
# @package _global_
# The same parcels, learned with a wider network.
defaults:
  - override /model: tabular-mlp
  - override /optim: adamw

task:
  _target_: hpc.tasks.tabular.TabularTask
  name: wide
  dataset: parcels
  serve: {model: wide}

model: {hidden: [128, 128]}
steps: 400
"""
GATE = '''\
"""A gate of one's own: the package must know a number of couriers."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from serving.artifact.manifest import GateRecord
from serving.release.gate import at_least
from serving.release.subject import GateSubject


@dataclass(frozen=True)
class CouriersGate:
    """Couriers in the transform of the package, at least `minimum`."""

    required: bool
    minimum: int

    def names(self, name: str, subject: GateSubject) -> tuple[str, ...]:
        return (name,)

    def run(self, name: str, subject: GateSubject) -> Iterator[GateRecord]:
        transform = json.loads((subject.staged.folder / "version/transform.json").read_text())
        yield at_least(name, len(transform["features"][0]["vocabulary"]), self.minimum, "couriers")
'''
GATES = """\
# The standard set of a yes-or-no target, and a gate of this project.
defaults:
  - tabular_binary
  - _self_

couriers:
  _target_: couriers.CouriersGate
  required: true
  minimum: 3
"""
MAKE_GATES = """\
from conf import compose, enter_project
from conf.schema import plain_values
from serving.release.settings import make_gates

enter_project()
print(*make_gates(plain_values(compose("release", ["gates=wide"]).gates, "gates")))
"""


@dataclass(frozen=True)
class Workplace:
    """A clone of Lockgate, a project beside it, and a folder for data and runs."""

    clone: Path
    project: Path
    state: Path

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        variables = {key: value for key, value in os.environ.items() if key != "LOCKGATE_PROJECT"}
        variables |= {"PYTHONPATH": str(self.clone), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(
            [sys.executable, *words], cwd=self.project, env=variables,
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    def lockgate(self, *words: str) -> str:
        site = [f"site.paths.{name}={self.state / name}" for name in ("data", "runs")]
        done = self.run("-m", "hpc.cli.main", *words, *site)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def git_status(self) -> str:
        """Lines of `git status` in the clone; "" when Lockgate is as it was."""
        return git(self.clone, "status", "--porcelain", "--untracked-files=all", "--ignored")

    def files(self) -> set[str]:
        """The project's files."""
        found = (path for path in self.project.rglob("*") if path.is_file())
        return {path.relative_to(self.project).as_posix() for path in found}


def git(folder: Path, *words: str) -> str:
    argv = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@t", *words]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """The checkout as it is, edits that are not committed included, as one commit of a clone."""
    folder = tmp_path_factory.mktemp("additions")
    for package in ("conf", "hpc", "kernels", "serving"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(REPO / package, folder / "lockgate" / package, ignore=ignored)
    git(folder, "init", "-q", "lockgate")
    git(folder / "lockgate", "add", "--all", "--force")
    git(folder / "lockgate", "commit", "-q", "-m", "as it is")
    made = Workplace(folder / "lockgate", folder / "parcels", folder / "state")
    made.project.mkdir()
    done = made.run("-m", "hpc.cli.main", "new", str(made.project), "--kind", "tabular")
    assert done.returncode == 0, done.stderr
    made.lockgate("data", "prepare", "data=parcels")
    return made


def test_a_task_is_one_file(workplace: Workplace) -> None:
    before = workplace.files()
    (workplace.project / "conf/task/wide.yaml").write_text(TASK)
    shown = workplace.lockgate("train", "task=wide", "cluster=local", "--dry-run")
    assert "hidden: [128, 128]" in shown or "- 128" in shown
    assert workplace.files() - before == {"conf/task/wide.yaml"}
    assert workplace.git_status() == ""


def test_a_gate_is_one_file_and_its_entry_in_the_tasks_gates(workplace: Workplace) -> None:
    before = workplace.files()
    (workplace.project / "conf/gates/wide.yaml").write_text(GATES)
    (workplace.project / "couriers.py").write_text(GATE)
    done = workplace.run("-c", MAKE_GATES)
    assert "couriers" in done.stdout.split(), done.stderr
    assert "base_rate.auc" in done.stdout.split()
    assert workplace.files() - before == {"conf/gates/wide.yaml", "couriers.py"}
    assert workplace.git_status() == ""


def test_an_edit_of_lockgate_is_seen(workplace: Workplace) -> None:
    (workplace.clone / "conf" / "extra.yaml").write_text("")
    assert workplace.git_status() == "?? conf/extra.yaml\n"
    (workplace.clone / "conf" / "extra.yaml").unlink()
