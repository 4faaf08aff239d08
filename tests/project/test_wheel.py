"""Lockgate as a wheel, in an environment with exactly what an extra asks for."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REPO = Path(__file__).parents[2]
TRAINING = ("deepspeed", "duckdb", "torch", "transformers", "triton")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel in it."""

    folder: Path

    def run(
        self, *words: str, cwd: Path, module: str = "", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        program = [str(self.folder / "bin" / words[0]), *words[1:]]
        if module:
            program = [str(self.folder / "bin" / "python"), "-m", module, *words]
        return subprocess.run(
            program, cwd=cwd, env={"PATH": "/usr/bin:/bin", **variables},
            capture_output=True, text=True, timeout=100,
        )  # fmt: skip

    def can_import(self, package: str) -> bool:
        code = f"import importlib.util as u, sys; sys.exit(u.find_spec({package!r}) is None)"
        return self.run("python", "-c", code, cwd=self.folder).returncode == 0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built of a copy: building writes beside the source."""
    source = tmp_path_factory.mktemp("source") / "lockgate"
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for part in ("conf", "hpc", "kernels", "serving"):
        shutil.copytree(REPO / part, source / part, ignore=ignore)
    for part in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPO / part, source)
    folder = tmp_path_factory.mktemp("wheel")
    _pip("wheel", str(source), "--no-deps", "--no-build-isolation", "--no-index", "-w", str(folder))
    (built,) = folder.glob("lockgate-*.whl")
    return built


@pytest.fixture(scope="module")
def base(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """`pip install lockgate`."""
    return _install(wheel, "", tmp_path_factory.mktemp("base") / "env")


@pytest.fixture(scope="module")
def fleet(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """`pip install lockgate[fleet]`, as on a control host."""
    return _install(wheel, "fleet", tmp_path_factory.mktemp("fleet") / "env")


def test_the_command_needs_nothing_but_the_base(base, tmp_path):
    assert "usage: lockgate VERB" in base.run("lockgate", "--help", cwd=tmp_path).stdout
    assert base.run("lockgate", "--version", cwd=tmp_path).stdout.startswith("lockgate ")
    shown = base.run("lockgate", "train", "--cfg", "job", "task=flights", "--json", cwd=tmp_path)
    assert json.loads(shown.stdout)["task"]["name"] == "flights", shown.stderr
    assert not any(base.can_import(name) for name in (*TRAINING, "fabric", "numpy"))


@pytest.mark.parametrize("kind", ["module", "tabular", "text", "transformers"])
def test_a_project_is_made_and_composes(base, kind, tmp_path):
    made = base.run("lockgate", "new", "my_net", "--kind", kind, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    inside = tmp_path / "my_net" / "conf"
    shown = base.run("lockgate", "train", "--cfg", "job", "task=my_net", "--json", cwd=inside)
    assert json.loads(shown.stdout)["task"]["dataset"] == "my_net", shown.stderr


def test_a_control_host_lists_its_tasks_and_has_no_torch(fleet, tmp_path):
    assert fleet.run("lockgate", "new", "my_net", cwd=tmp_path).returncode == 0
    listed = fleet.run("-l", module="fabric", cwd=tmp_path / "my_net" / "conf")
    assert listed.returncode == 0, listed.stderr
    for task in ("deploy", "heal", "plan", "rollback", "status"):
        assert re.search(rf"^ +{task} ", listed.stdout, re.MULTILINE), listed.stdout
    assert not any(fleet.can_import(name) for name in TRAINING)


def test_fab_uses_the_project_and_its_site(fleet, tmp_path):
    fleet.run("lockgate", "new", "my_net", cwd=tmp_path)
    root = tmp_path / "my_net"
    (root / "lockgate.yaml").write_text("name: my_net\nsite: lab\n")
    refused = fleet.run("status", module="fabric", cwd=root)
    assert f"{root}/lockgate.yaml: site: lab: there is no such site" in refused.stderr
    (root / "conf" / "site").mkdir()
    box = (REPO / "conf" / "site" / "box.yaml").read_text()
    (root / "conf" / "site" / "lab.yaml").write_text(box.replace("name: box", "name: lab", 1))
    done = fleet.run("status", module="fabric", cwd=root, LOCKGATE_SITE=str(tmp_path / "state"))
    assert "Traceback" not in done.stderr
    assert "ModuleNotFoundError" not in done.stderr


def test_one_line_makes_any_folder_a_control_hosts(fleet, tmp_path):
    assert fleet.run("-l", module="fabric", cwd=tmp_path).returncode != 0
    (tmp_path / "fabfile.py").write_text("from serving.fleet.cli.tasks import *\n")
    assert "rollback" in fleet.run("-l", module="fabric", cwd=tmp_path).stdout


def test_the_fleet_extra_covers_every_module_of_the_control_plane(fleet, tmp_path):
    names = [
        path.relative_to(REPO).with_suffix("").as_posix().replace("/", ".")
        for part in ("fleet", "observe", "triton")
        for path in sorted((REPO / "serving" / part).glob("*.py"))
        if path.name not in ("__init__.py", "__main__.py")
    ]
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    done = fleet.run("python", "-c", code, *names, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def _install(wheel: Path, extra: str, folder: Path) -> Installed:
    """The wheel and what `extra` asks for, linked from this environment: no network, no time."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    _pip("--python", str(python), "install", "--no-deps", "--no-index", "-q", str(wheel))
    paths = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", vars=paths))
    declared = list(packages.glob("lockgate-*.dist-info"))
    for needed in _closure(Distribution.at(declared[0]), frozenset({extra} - {""})):
        for name in _files(needed):
            target = packages / name
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(Path(str(needed.locate_file(name))).resolve())
    return Installed(folder)


def _files(needed: Distribution) -> list[str]:
    """What a distribution put into site-packages, scripts left out."""
    if needed.read_text("RECORD"):
        return [str(file) for file in needed.files or [] if ".." not in file.parts]
    # Installed in the old way: only the names of its packages are on record.
    return [
        needed.locate_file(name).name for name in (needed.read_text("top_level.txt") or "").split()
    ]


def _closure(top: Distribution, extras: frozenset[str]) -> Iterator[Distribution]:
    """Every distribution that `top` with its extras asks for here, each once."""
    waiting, seen = [(top, extras)], {("lockgate", extras)}
    found: set[str] = set()
    while waiting:
        asking, asked = waiting.pop()
        for line in asking.requires or []:
            requirement = Requirement(line)
            marker = requirement.marker
            if marker and not any(marker.evaluate({"extra": one}) for one in (asked or {""})):
                continue
            entry = (requirement.name.lower(), frozenset(requirement.extras))
            if entry in seen:
                continue
            seen.add(entry)
            own = entry[0] == "lockgate"
            try:
                needed = top if own else distribution(requirement.name)
            except PackageNotFoundError:
                raise AssertionError(
                    f"{asking.name} asks for {line}, not in this environment"
                ) from None
            waiting.append((needed, entry[1]))
            if not own and entry[0] not in found:
                found.add(entry[0])
                yield needed


def _pip(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *words],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""}, cwd="/",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
